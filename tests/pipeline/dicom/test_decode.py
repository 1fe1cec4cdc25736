"""Pixels of a slice: uncompressed encodings, modality tables, padding, MONOCHROME1."""

import numpy as np
import pydicom
import pytest
from fixtures.dicom import NATIVE, described, file_bytes, plain, smooth
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
)

from lumbar.pipeline.dicom.decode import decode
from lumbar.pipeline.dicom.parse import parse
from lumbar.pipeline.reject import Reason, RejectedError


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("name", NATIVE)
def test_plain_pixels_of_every_encoding(tools, tmp_path, name, bits):
    """One phantom written in each encoding is one volume; of eight bits, big-endian is in words."""

    def shrink(dataset, index):
        values = smooth(bits, 48, 40) // (index + 1)
        dataset.PixelData = values.tobytes()
        dataset.BitsAllocated = 8 * values.dtype.itemsize
        dataset.BitsStored, dataset.HighBit = bits, bits - 1

    def encode(dataset, index):
        shrink(dataset, index)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = NATIVE[name]
        if name == "big-endian":
            data = np.frombuffer(dataset.PixelData, "u2").byteswap().tobytes()
            dataset.add_new("PixelData", "OW", data)
        target = tmp_path / "src" / f"{index}.of-any-name"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"")
        pydicom.dcmwrite(
            target,
            dataset,
            enforce_file_format=True,
            implicit_vr=name == "implicit",
            little_endian=name != "big-endian",
        )

    for index in range(7):
        dataset = tools.phantom.dataset(index)
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        encode(dataset, index)
    tools.phantom.write(tmp_path / "plain", edit=shrink)
    found, _ = tools.assert_same_volume(tmp_path)
    assert found.series["transfer_syntax"].to_list() == [NATIVE[name]]
    assert found.rejected.is_empty()


def test_modality_table_is_applied(tools, tmp_path):
    """A LUT sequence instead of slope and intercept: stored 0..3 are 0, 10, 500 and 1000."""

    def add_table(dataset, index):
        item = pydicom.Dataset()
        item.LUTDescriptor, item.ModalityLUTType = [4, 0, 16], "US"
        item.LUTData = np.array([0, 10, 500, 1000], "<u2").tobytes()
        dataset.ModalityLUTSequence = [item]
        values = np.arange(48 * 40).reshape(48, 40) % 4
        dataset.PixelData = values.astype(np.uint16).tobytes()

    tools.phantom.write(tmp_path / "src", edit=add_table)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window = cache.attributes(0).window
    assert (window.low, window.high) == (0, 1000)
    # The phantom's rows run along +y and down: the picture is stored as it is.
    row = cache.volume(0)[3, 0, :4] / 32767 * 1000
    assert row == pytest.approx([0, 10, 500, 1000], abs=0.02)


TABLE = [(-5, 900), (-3, 900), (-2, 700), (-1, 400), (0, 90), (7, 90)]
"""Values and what the table below makes of them: it begins at -3, and its ends go on."""


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_modality_table_that_begins_below_zero_comes_before_the_turning_round(photometric):
    """MONOCHROME1 says how the table's values are shown, not the stored ones (PS3.3, C.7.6.3)."""
    stored, expected = np.array(TABLE).reshape(1, -1, 2).transpose(2, 0, 1)
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4, -3, 10], "US"
    item.LUTData = [900, 700, 400, 90]
    data = stored.astype("<i2").tobytes()
    dataset = described(
        stored.astype(np.int16), stored=12, syntax=ExplicitVRLittleEndian, data=data
    )
    dataset.ModalityLUTSequence, dataset.PhotometricInterpretation = [item], photometric
    wanted = expected if photometric == "MONOCHROME2" else 1023 - expected
    assert decode(dataset, 0).values.tolist() == wanted.tolist()


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("name", ["implicit", "explicit", "big-endian"])
def test_modality_table_from_a_file(tmp_path, name, vr, bits):
    """Its words lie in the order of the file's bytes; those of eight bits may be packed."""
    entries = np.array([9, 250, 3, 77], "u2")
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4, -1, bits], "US"
    order = ">" if name == "big-endian" else "<"
    packed = entries.astype("u1") if bits == 8 else entries.astype(f"{order}u2")
    item.add_new("LUTData", vr, entries.tolist() if vr == "US" else packed.tobytes())
    stored = np.array([[-2, -1], [0, 1], [2, 9]], "i2")
    dataset = described(
        stored, stored=16, syntax=NATIVE[name], data=stored.astype(f"{order}i2").tobytes()
    )
    dataset.ModalityLUTSequence = [item]
    found = decode(parse(file_bytes(dataset, tmp_path)), 0).values
    assert found.tolist() == [[9, 9], [250, 3], [77, 77]]


@pytest.mark.parametrize("descriptor", [[5, 0, 12], [4, 0, 0], [4, 0, 17]])
def test_modality_table_that_is_none_is_refused(descriptor):
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = descriptor, [1, 2, 3, 4]
    values = smooth(12)
    dataset = plain(values, stored=12)
    dataset.ModalityLUTSequence = [item]
    with pytest.raises(RejectedError, match="modality table of 4 of") as caught:
        decode(dataset, 0)
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_signed_pixels_are_turned_round_within_their_bits(bits):
    stored = smooth(bits, signed=True)
    dataset = plain(stored, stored=bits)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    found = decode(dataset, 0).values
    assert found.dtype == stored.dtype
    assert np.array_equal(found, -1 - stored.astype(int))


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
def test_range_of_padding_in_a_file(tools, tmp_path, rle, signed):
    """From value to limit, either being the lower one; values beside the range are no padding."""
    first, last = (-2000, -1990) if signed else (60, 50)

    def pad(dataset, index):
        picture = (tools.phantom.picture(index).astype(int) - 19000) // 2 + 100
        picture[:, :5], picture[:, 5:8] = first, (first + last) // 2
        picture[:2, 8] = min(first, last) - 1, max(first, last) + 1
        dataset.PixelRepresentation = int(signed)
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = first, last
        dataset.PixelData = picture.astype(np.int16).tobytes()

    tools.phantom.write(tmp_path / "src", edit=pad, rle=rle)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window, volume = cache.attributes(0).window, np.asarray(cache.volume(0))
    assert window.low == min(first, last) - 1
    assert not volume[:, :, :8].any()
    assert (volume[:, 1:, 8:] > 0).all()


@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
def test_inverted_pixels_of_twelve_bits_with_padding(tools, tmp_path, rle):
    """MONOCHROME1 is turned round within BitsStored; padding is found before that."""

    def invert(dataset, index):
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.BitsStored, dataset.HighBit = 12, 11
        picture = 4000 - (tools.phantom.picture(index) - 19000) // 10
        picture[:, 30:] = 4095
        dataset.PixelPaddingValue = 4095
        dataset.PixelData = picture.astype(np.uint16).tobytes()

    tools.phantom.write(tmp_path / "src", edit=invert, rle=rle)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window = cache.attributes(0).window
    expected = 95 + (tools.phantom.picture(0).min() - 19000) // 10
    assert window.low == expected
    volume = np.asarray(cache.volume(0))
    assert not volume[:, :, 30:].any()
    assert volume[6, 0, 0] == 32767


WRITTEN = {
    "US": lambda value, bits: ("US", value & 0xFFFF),
    "SS": lambda value, bits: ("SS", (value + 2**15) % 2**16 - 2**15),
    "US, stored bits alone": lambda value, bits: ("US", value & (2**bits - 1)),
    "UN": lambda value, bits: ("UN", (value & 0xFFFF).to_bytes(2, "little")),
}


@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("value", [-2000, 0, 2047])
def test_padding_of_signed_pixels(tools, tmp_path, how, bits, value, rle):
    """It does not count for the window, and is stored as 0."""

    def pad(dataset, index):
        picture = np.full((48, 40), 300) + np.arange(40) + index
        picture[:, :9] = value
        dataset.PixelRepresentation = 1
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        dataset.PixelData = picture.astype(np.int16).tobytes()
        vr, number = WRITTEN[how](value, bits)
        dataset["PixelPaddingValue"] = DataElement("PixelPaddingValue", vr, number)

    tools.phantom.write(tmp_path / "src", edit=pad, rle=rle)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window, volume = cache.attributes(0).window, np.asarray(cache.volume(0))
    assert (window.low, window.high) == (309, 345)
    assert not volume[:, :, :9].any()
    assert (volume[1:, :, 9:] > 0).all()


def test_range_of_padding_that_is_written_without_its_sign(tools, tmp_path):
    def pad(dataset, _):
        picture = np.full((48, 40), 300) + np.arange(40)
        picture[:, :9] = np.arange(-2000, -1991)
        dataset.PixelRepresentation = 1
        dataset.PixelPaddingValue = 63536
        dataset.PixelPaddingRangeLimit = 63545
        dataset["PixelPaddingValue"].VR = dataset["PixelPaddingRangeLimit"].VR = "US"
        dataset.PixelData = picture.astype(np.int16).tobytes()

    tools.phantom.write(tmp_path / "src", edit=pad)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.attributes(0).window.low == 309


def test_padding_of_unsigned_pixels_that_is_written_with_a_sign():
    values = np.array([[63536, 5], [7, 9]], np.uint16)
    dataset = plain(values, stored=16)
    dataset["PixelPaddingValue"] = DataElement("PixelPaddingValue", "SS", -2000)
    assert decode(dataset, 0).padding.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("first", [40000, 40000 - 2**16])
def test_table_of_unsigned_pixels_that_begins_high(first):
    stored = np.array([[39999, 40000], [40001, 40009]], np.uint16)
    table = pydicom.Dataset()
    vr = "SS" if first < 0 else "US"
    table["LUTDescriptor"] = DataElement("LUTDescriptor", vr, [3, first, 12])
    table.LUTData = [11, 22, 33]
    dataset = plain(stored, stored=16)
    dataset.ModalityLUTSequence = [table]
    assert decode(dataset, 0).values.tolist() == [[11, 11], [22, 33]]


@pytest.mark.parametrize("first", [-2000, 63536, 2096])
def test_table_of_twelve_signed_bits(first):
    """-2000 written with its sign, without it, and with the stored bits alone."""
    stored = np.array([[-2001, -2000], [-1999, 2047]], np.int16)
    table = pydicom.Dataset()
    vr = "SS" if first < 0 else "US"
    table["LUTDescriptor"] = DataElement("LUTDescriptor", vr, [3, first, 12])
    table.LUTData = [11, 22, 33]
    dataset = plain(stored, stored=12)
    dataset.ModalityLUTSequence = [table]
    assert decode(dataset, 0).values.tolist() == [[11, 11], [22, 33]]
