"""The size and type in the header of a compressed frame, read before the frame is decoded.

A decoder allocates the size in the frame, not that in the file's header: a file of 64 x 64 pixels
whose JPEG claims 60,000 x 60,000 would cost gigabytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
RLE = "1.2.840.10008.1.2.5"

JPEG_FAMILY = "1.2.840.10008.1.2.4.50"
JPEG_2000_FAMILY = "1.2.840.10008.1.2.4.90"
JPEG_XL_FAMILY = "1.2.840.10008.1.2.4.110"
"""One transfer syntax for all whose frames begin alike, JPEG-LS among JPEG. The size of a JPEG XL
frame is not read here."""

END_MARKER = b"\xff\xd9"
"""It is the same for JPEG, JPEG-LS and JPEG 2000."""

_START_OF_IMAGE = b"\xff\xd8"
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers of JPEG and JPEG-LS; C4, C8 and CC mark tables or are reserved."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length."""
_START_OF_SCAN = 0xDA

_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
_SEARCHED_BYTES = 4096
"""The codestream of a JP2 file begins within these bytes, after boxes that DICOM forbids."""
_CODING_STYLE = 0x52
_START_OF_TILE = 0x90
_REVERSIBLE = 1


@dataclass(frozen=True, slots=True)
class Codestream:
    """Size and type of a compressed frame; ``is_reversible``: decoding does not round."""

    rows: int
    columns: int
    components: int
    precision: int
    is_signed: bool
    is_reversible: bool


def find_family(frame: bytes) -> str:
    """Return the kind of a frame by its first bytes, "" for an unknown one."""
    if frame.startswith(_START_OF_IMAGE):
        return JPEG_FAMILY
    if frame.startswith((_START_OF_CODESTREAM, b"\0\0\0\x0cjP  ")):
        return JPEG_2000_FAMILY
    return JPEG_XL_FAMILY if frame.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")) else ""


def read_codestream(frame: bytes, syntax: str) -> Codestream | None:
    """Return the size and type of a frame; None for RLE, which has none, and for JPEG XL.

    Raises
    ------
    ValueError
        If it is no codestream of its transfer syntax, or ends inside its header.
    """
    if syntax in {RLE, JPEG_XL_FAMILY}:
        return None
    try:
        if syntax in JPEG_2000:
            return _read_jpeg_2000(frame)
        return _read_jpeg(frame)
    except (struct.error, IndexError) as error:
        message = "the compressed frame ends inside its header"
        raise ValueError(message) from error


def _read_jpeg(frame: bytes) -> Codestream:
    """Find the start-of-frame segment (ISO/IEC 10918-1, B.1.1 and B.2.2)."""
    if not frame.startswith(_START_OF_IMAGE):
        message = f"the frame starts with {frame[:2].hex() or 'nothing'}, a JPEG with ffd8"
        raise ValueError(message)
    place = len(_START_OF_IMAGE)
    while True:
        if frame[place] != 0xFF:
            message = f"no JPEG marker at byte {place}"
            raise ValueError(message)
        marker = frame[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker in _FRAMES:
            precision, rows, columns, components = struct.unpack_from(">xxBHHB", frame, place + 2)
            is_lossless = marker in {0xC3, 0xC7, 0xCB, 0xCF, 0xF7}
            return Codestream(
                rows, columns, components, precision, is_signed=False, is_reversible=is_lossless
            )
        if marker == _START_OF_SCAN:
            message = "a JPEG whose scan comes before its size"
            raise ValueError(message)
        place += 2
        if marker not in _ALONE:
            place += struct.unpack_from(">H", frame, place)[0]


def _read_jpeg_2000(frame: bytes) -> Codestream:
    """Read the SIZ and COD segments (ISO/IEC 15444-1, A.5.1 and A.6.1)."""
    start = frame.find(_START_OF_CODESTREAM, 0, _SEARCHED_BYTES)
    if start < 0:
        message = f"the frame starts with {frame[:4].hex() or 'nothing'}, JPEG 2000 with ff4fff51"
        raise ValueError(message)
    place = start + len(_START_OF_CODESTREAM)
    right, bottom, left, top = struct.unpack_from(">IIII", frame, place + 4)
    components, depth = struct.unpack_from(">HB", frame, place + 36)
    return Codestream(
        bottom - top,
        right - left,
        components,
        (depth & 0x7F) + 1,
        is_signed=bool(depth & 0x80),
        is_reversible=_has_reversible_wavelet(frame, place),
    )


def _has_reversible_wavelet(frame: bytes, place: int) -> bool:
    """Tell whether the wavelet is the reversible 5-3 one; the search starts at ``place``."""
    while True:
        place += struct.unpack_from(">H", frame, place)[0]
        marker = frame[place + 1]
        if marker == _CODING_STYLE:
            return frame[place + 13] == _REVERSIBLE
        if frame[place] != 0xFF or marker == _START_OF_TILE:
            message = "JPEG 2000 without a coding style"
            raise ValueError(message)
        place += 2
