"""Values whose type and sign disagree: bit patterns are compared, in every element in use."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from lumbar.pipeline.dicom import decode
from lumbar.pipeline.dicom.elements import same_bits

WRITTEN = {
    "US": lambda value, bits: ("US", value & 0xFFFF),
    "SS": lambda value, bits: ("SS", (value + 2**15) % 2**16 - 2**15),
    "US, stored bits alone": lambda value, bits: ("US", value & (2**bits - 1)),
    "UN": lambda value, bits: ("UN", (value & 0xFFFF).to_bytes(2, "little")),
}


def described(values, *, stored):
    """Return a picture as a data set."""
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * values.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = values.tobytes()
    return dataset


@given(st.integers(2, 16), st.booleans(), st.data())
def test_a_value_is_found_again_however_it_was_written(stored, signed, data):
    low = -(2 ** (stored - 1)) if signed else 0
    value = data.draw(st.integers(low, low + 2**stored - 1))
    for written in (value, value & 0xFFFF, (value + 2**15) % 2**16 - 2**15):
        assert same_bits(written, stored, 16, is_signed=signed) in {value, written}
    written = value & 0xFFFF if signed else (value + 2**15) % 2**16 - 2**15
    if not low <= written < low + 2**stored:
        assert same_bits(written, stored, 16, is_signed=signed) == value


@pytest.mark.parametrize("written", [65535, 63536, -40000])
def test_a_value_that_no_pixel_has_stays_itself(written):
    assert same_bits(written, 12, 16, is_signed=False) == written


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
    dataset = described(values, stored=16)
    dataset["PixelPaddingValue"] = DataElement("PixelPaddingValue", "SS", -2000)
    assert decode.decode(dataset, 0).padding.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("first", [40000, 40000 - 2**16])
def test_table_of_unsigned_pixels_that_begins_high(first):
    stored = np.array([[39999, 40000], [40001, 40009]], np.uint16)
    table = pydicom.Dataset()
    vr = "SS" if first < 0 else "US"
    table["LUTDescriptor"] = DataElement("LUTDescriptor", vr, [3, first, 12])
    table.LUTData = [11, 22, 33]
    dataset = described(stored, stored=16)
    dataset.ModalityLUTSequence = [table]
    assert decode.decode(dataset, 0).values.tolist() == [[11, 11], [22, 33]]


@pytest.mark.parametrize("first", [-2000, 63536, 2096])
def test_table_of_twelve_signed_bits(first):
    """-2000 written with its sign, without it, and with the stored bits alone."""
    stored = np.array([[-2001, -2000], [-1999, 2047]], np.int16)
    table = pydicom.Dataset()
    vr = "SS" if first < 0 else "US"
    table["LUTDescriptor"] = DataElement("LUTDescriptor", vr, [3, first, 12])
    table.LUTData = [11, 22, 33]
    dataset = described(stored, stored=12)
    dataset.ModalityLUTSequence = [table]
    assert decode.decode(dataset, 0).values.tolist() == [[11, 11], [22, 33]]


# Rescaling.


def rescaled(cache):
    attributes = cache.attributes(0)
    low, high = attributes.window.low, attributes.window.high
    return np.asarray(cache.volume(0), float) * attributes.scale * (high - low) + low


@pytest.mark.parametrize(
    ("tags", "slope", "intercept"),
    [({"RescaleSlope": "-2"}, -2, 0), ({"RescaleIntercept": "-500"}, 1, -500)],
)
def test_half_of_a_rescaling_is_taken_at_its_word(tools, tmp_path, tags, slope, intercept):
    tools.with_tags(**tags).write(tmp_path / "src")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    expected = np.stack([tools.phantom.picture(index).astype(float) for index in range(7)])
    expected = expected * slope + intercept
    assert np.abs(rescaled(cache) - expected).max() <= np.ptp(expected) / 32767


def test_a_negative_slope_with_padding_and_the_other_photometric(tools, tmp_path):
    """Padding is found in what is stored, the window lies in what is rescaled."""

    def edit(dataset, index):
        picture = np.full((48, 40), 300) + np.arange(40) + index
        picture[:, :9] = -2000
        dataset.PixelRepresentation = 1
        dataset.RescaleSlope, dataset.RescaleIntercept = "-1", "0"
        dataset["PixelPaddingValue"] = DataElement("PixelPaddingValue", "US", 63536)
        dataset.PixelData = picture.astype(np.int16).tobytes()

    replace(tools.phantom, depth=7).write(tmp_path / "src", edit=edit)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window, volume = cache.attributes(0).window, np.asarray(cache.volume(0))
    assert (window.low, window.high) == (-345, -309)
    assert not volume[:, :, :9].any()
    assert (np.diff(volume[0, 0, 9:].astype(int)) < 0).all()
