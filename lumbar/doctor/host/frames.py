"""Frames of 16 x 16 pixels with known values, as the bytes of DICOM files.

The compressed frames were encoded once and are kept as text (base 85), so that no decoder is tested
with its own encoder. `tests/doctor/test_frames.py` names the encoders.
"""

from __future__ import annotations

from base64 import b85decode
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from jaxtyping import UInt8, UInt16
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

SIDE = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: transfer syntax, bytes, bits per value, and how much a value may differ."""

    syntax: str
    data: bytes
    bits: int = 12
    tolerance: int = 0

    @property
    def is_compressed(self) -> bool:
        """Whether the frame has to be decoded."""
        return UID(self.syntax).is_encapsulated

    @property
    def values(self) -> UInt8[np.ndarray, "16 16"] | UInt16[np.ndarray, "16 16"]:
        """The values that were encoded."""
        return gradient() if self.bits == 12 else gradient_of_8_bits()

    def file(self) -> bytes:
        """Return the bytes of a DICOM file of the frame."""
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(self.syntax)
        dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
        dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
        dataset.SOPClassUID, dataset.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.4"), "1.2.3"
        dataset.Rows = dataset.Columns = SIDE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = 16 if self.bits > 8 else 8
        dataset.BitsStored, dataset.HighBit = self.bits, self.bits - 1
        dataset.PixelRepresentation = 0
        dataset.PixelData = encapsulate([self.data]) if self.is_compressed else self.data
        dataset["PixelData"].VR = "OB" if self.is_compressed else "OW"
        written = BytesIO()
        dataset.save_as(written, enforce_file_format=True)
        return written.getvalue()


def gradient() -> UInt16[np.ndarray, "16 16"]:
    """Return values of 12 bits that rise along both axes and wrap around."""
    side: Any = np.arange(SIDE)
    values: np.ndarray = (np.add.outer(side * 17, side * 230) % 4096).astype(np.uint16)
    return values


def gradient_of_8_bits() -> UInt8[np.ndarray, "16 16"]:
    """Return values of 8 bits that rise along both axes."""
    side: Any = np.arange(SIDE)
    values: np.ndarray = np.add.outer(side * 5, side * 11).astype(np.uint8)
    return values


RLE = (
    "0ssI2KmY&$W&r>I00000000000000000000000000000000000000000000000000000000000000000{{RL70s{"
    "mE1_%EL1PKZY3=RJP2LS>D1O)~M2>%HK3JVMk009312Lb~G1qKHQ3I7TL3k(ea0RI680s{mE1_uZU{|W*N3=IJQ0"
    "sjIA0|W&I2M7rY{|f;O4FUiG0{;UC1O)~M2nh-c{|o>P0ssL5{{sgE1qKHQ2?`7U3;+!S009C6{{#mG1_uZU3JVP"
    "X4FmuI0s{p91qcQQ2nh-c3=Iwh009C61pfsH1_uZU3JVMk4g~-K0s{mE{{{yK2nh-c3=Iwj009C61O*2F2L=cU3J"
    "VMk4h8@L0s{mE2LA^J2nh-c3=Iwk009C61O)~M{|E&M3JVMk4hR4N0s{mE1_ucL2?PoY3=Iwl009C61O)~M2>%HL"
    "3JVMk4ge1T=FGB~eq>587X0GKu9SKY5%=B0sgHGAK_?CK*}tWW4<ZQe)ViRCY*IKL1nSVXoDVY@|K-cEmwjVNFBS"
    "XY$E^=UDiHSE!l;gPT0kZY^4Pu)RXZUE?bErRg=<ka9Ruml4`xg<82;qSu$FvcNG=rm;173QLn#mS+rg)eb6Gzn3"
    "-J$#Zd5uT2JF(fo`h;pHXH&EnSW(VF&F*g$*+}rVMi?!52}!MTtX-g^xD9tjB;2$BoDixhiy|i9|h~tx1ED&Pc;w"
    "BvY38kN-!4u;>fO)dSFHm-NUJmbz4Cv4fEN*rHgS_5AM{upoVNxI35J*(6*d{Xb=D8%dwYzV@WR+`{Bo}lX("
)
JPEG = (
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%"
    "oX2?`1d3JL}Y3k(Yi3<(Mf3je?W3kU!Z01yEI5di<h03QGV0R;g80RaI400000000000RjUA1qKHQ2?`7U!~nGr0"
    "0IF60|EpC1qB2I0004f0RjU61Q7)iAu&M)6H#FYB5@QlfsvsIBSNvk6;jdgBr{@if(Z&17Z@2DB_<~*DJnEIHa9p"
    "qIzvQ7Mn_0VN>fx-R##YAT4Q8oW@l(=YIAgTc6WGrdV_?8hKGoWijtF*m6n&7nVO=bq@|{(sHv*5v$VCgx45~w!o"
    "$SH#>dFX%F@%+)z;V8+1laa<K*S$=jiF`@$&QZ_4fDp`TGCb00;pA002J#{NMeJz7l`Or}{7VdspiR>}~Lq{yjg@"
    "f4kbgKmCoq5`V|1`Y-o;SL+AtZSa%+JwMTZyV}41*#"
)
JPEG_LOSSLESS = (
    "|JeWF01!$>Nk#wx0RR9200961|HA+a3;+-S5CH)Z0RO}Q761VO0RR910000000000000OD4FB2y2mt{A0RRBc{^o"
    "NzoX%%6nat*MIh@XCGn$K;%;s}BoX%%6nat*MIh@XFE@v~D%;s}BoX%%6nat*MIjFgu&Sx{3%;s}BoX%%6nat**="
    "5slm&Sx{3%;s}BoX%%6nv0pt=5slm&Sx{3%;s}BoX%=4XET}1=5slm&Sx{3%;s}BsJWcZXET}1=5slm&Sx{3%;uu"
    "zb2*&OXET}1=5slm&Sx{4i<!*kb2*&OXET}1=5slm&T1}aGnvfhb2*&OXET}1=5slyxtz{tGnvfhb2*&OXET}1=A"
    "!0vIh@XCGnvfhb2*&OXEU0Mnat*MIh@XCGnvfhb2*&OYA$Cpnat*MIh@XCGnvfhb2+HFoX%%6nat*MIh@XCGnvfh"
    "|Je"
)
JPEG_LS = (
    "|JeWN03cIPNk&Eh0ssI30000G0000G3J?YX0003j0003j|L6b+00001|JeWc01FTR5C9MX0TBTI_y7$7|Nj6I07C"
    "&306_oR00;pA00000u3gKycPGd3d_M=j?|Z)Ix9xj4MF^n;Jq|{r5on~8gmh$NR3d~?QBe^RBu0%IG-%PHLI^<;B"
    "uJ4WM2Qk4l0_6f4@DGFMHEp*6j4PKISxe>QAHF{MHEp*6lygTQiLH0LJ))@7>q&?gdqq*5QHHXi$V~DArTP~5fq9"
    "<L_|bHL_|qRL_|bHL`fusgpx@ll1UvMB$7!al8lV1s;a2S%BrfWii)fMVu1hI"
)
JPEG_2000 = (
    "|4;u>04V?f0000G0000G00000000000000G0000G0000000000009dD0sm3}3;+NC0RRC61ONg5TmT0^U}$J?|6~"
    "9q00BdCWnpw>WFTUBAWv{*Zc0!^M<8}(a&u{KZXhx)H7+#&kN^q*00000d;kIeli%S;5-Voqph?;N38W1LgFT@-u"
    "=ax7U!THrBE<AAl~92M6z@tWaUdM%V0clW@^}dhwjxGGn<MmycNtP{L!1g&AZ-!RAU<I@1Aqfs3WY^Q4}ZY?0^kp"
    "vI5we$IT#RA2SyHGJ*G5YHwFX$*#"
)
HTJ2K = (
    "|4;u>04YEK0000G0000G00000000000000G0000G0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0sm"
    "Y86Cj9?kdTm&kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000fB*silfVEbEB6HlbN~Rr0"
    "24p}5`b**1BY|~HUWop0KfnfzyK2fGLXRo0(1bHngByo0KfnhPyhu`3Mim}0;+O?bpT35QU1UXf$X*bzyK`>00p4"
    "R%F4>h%F4>;%6fWnf_MNR00000{{4Ued-ebU?79H|*#"
)


_PREFIX = "1.2.840.10008.1.2.4."

FRAMES: dict[str, tuple[Frame, ...]] = {
    "uncompressed": (
        Frame(ImplicitVRLittleEndian, gradient().astype("<u2").tobytes()),
        Frame(ExplicitVRLittleEndian, gradient().astype("<u2").tobytes()),
        Frame(ExplicitVRBigEndian, gradient().astype(">u2").tobytes()),
    ),
    "deflated": (Frame(DeflatedExplicitVRLittleEndian, gradient().astype("<u2").tobytes()),),
    "RLE": (Frame("1.2.840.10008.1.2.5", b85decode(RLE)),),
    # Lossy, and decoders may round.
    "JPEG": (Frame(f"{_PREFIX}50", b85decode(JPEG), bits=8, tolerance=4),),
    "JPEG lossless": (
        Frame(f"{_PREFIX}57", b85decode(JPEG_LOSSLESS)),
        Frame(f"{_PREFIX}70", b85decode(JPEG_LOSSLESS)),
    ),
    "JPEG-LS": (Frame(f"{_PREFIX}80", b85decode(JPEG_LS)),),
    "JPEG 2000": (Frame(f"{_PREFIX}90", b85decode(JPEG_2000)),),
    "HTJ2K": (Frame(f"{_PREFIX}201", b85decode(HTJ2K)),),
}
"""The frames of each decoder that `lumbar preprocess` uses."""
