"""What other readers read and what they call by name: surplus frames, cut files, odd encodings."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from lumbar.pipeline.dicom import codecs, decode
from lumbar.pipeline.dicom.codestream import find_family
from lumbar.pipeline.dicom.diffusion import shows_diffusion
from lumbar.pipeline.dicom.header import read_slices
from lumbar.pipeline.dicom.parse import parse, quiet_pydicom
from lumbar.pipeline.reject import Reason, RejectedError

PREFIX = "1.2.840.10008.1.2.4."
PLAIN = {ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian}
IMAGE_CLASS = "1.2.840.10008.5.1.4.1.1.4"


def item(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def smooth(bits, rows=37, columns=46):
    row, column = np.mgrid[:rows, :columns]
    wave = np.sin(row / 7) * np.cos(column / 9)
    wave = (wave - wave.min()) / np.ptp(wave) * (2**bits - 1)
    return np.rint(wave).astype(np.uint16)


def described(values, *, stored, syntax, data):
    """Return a picture as a data set, its frame compressed or not."""
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * values.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = data
    dataset["PixelData"].is_undefined_length = syntax not in PLAIN
    return dataset


def quietly_parsed(data):
    with quiet_pydicom():
        return parse(data)


# Transfer syntaxes.


def compressed(values, frame, syntax, stored):
    return described(values, stored=stored, syntax=syntax, data=encapsulate([bytes(frame)]))


@pytest.mark.parametrize("number", ["51", "52", "53", "54", "55"])
def test_lossy_jpeg_of_twelve_bits_is_read_where_pydicom_refuses(number, monkeypatch):
    """Extended, and the retired forms of the same process: nobody knows those by their name."""

    def refuse(*_):
        raise RejectedError(Reason.UNDECODABLE, "no")

    monkeypatch.setattr(codecs, "_decode_by_pydicom", refuse)
    values = smooth(12)
    frame = imagecodecs.jpeg8_encode(values, level=97, bitspersample=12)
    found = decode.decode(compressed(values, frame, PREFIX + number, 12), 0).values
    assert found.dtype == np.uint16
    assert np.abs(found.astype(int) - values).max() < 120
    assert np.array_equal(found, imagecodecs.jpeg8_decode(frame))


@pytest.mark.parametrize(
    ("number", "encode"),
    [
        ("65", lambda a: imagecodecs.jpeg8_encode(a, lossless=True, bitspersample=12)),
        ("92", lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True)),
        ("110", lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
        ("112", lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
        ("99", imagecodecs.jpegls_encode),
    ],
)
def test_frames_of_an_unknown_syntax_are_read_by_what_they_are(number, encode):
    values = smooth(12)
    frame = encode(values)
    assert find_family(bytes(frame))
    found = decode.decode(compressed(values, frame, PREFIX + number, 12), 0).values
    assert np.array_equal(found, values)


@pytest.mark.parametrize("number", ["51", "53", "110"])
def test_a_frame_that_is_not_as_the_header_says_is_refused(number):
    """Of other rows, or of more bits: the last decoder is no way around a check."""
    values = smooth(12)
    encode = imagecodecs.jpegxl_encode if number == "110" else imagecodecs.jpeg8_encode
    options = {"lossless": True} if number == "110" else {"level": 97, "bitspersample": 12}
    frame = encode(values, **options)
    higher = compressed(values, frame, PREFIX + number, 12)
    higher.Rows += 1
    with pytest.raises(RejectedError):
        decode.decode(higher, 0)
    if number == "53":
        fewer = compressed(values, frame, PREFIX + number, 10)
        with pytest.raises(RejectedError):
            decode.decode(fewer, 0)


def test_unknown_bytes_of_an_unknown_syntax_are_named():
    values = smooth(12)
    dataset = compressed(values, b"nothing that is known", "1.2.840.10008.1.2.4.53", 12)
    with pytest.raises(RejectedError) as caught:
        decode.decode(dataset, 0)
    assert caught.value.reason is Reason.UNSUPPORTED_TRANSFER_SYNTAX


# Files that end too early.


def written(dataset, folder):
    dataset.preamble = bytes(128)
    dataset.SOPClassUID = IMAGE_CLASS
    dataset.save_as(folder / "file", enforce_file_format=False)
    return (folder / "file").read_bytes()


def jpeg_file(folder, frames=1):
    values = smooth(12)
    frame = bytes(imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12))
    dataset = described(
        values, stored=12, syntax=PREFIX + "70", data=encapsulate([frame] * frames, has_bot=False)
    )
    dataset.NumberOfFrames = frames
    return written(dataset, folder), values


@pytest.mark.parametrize("lost", range(1, 9))
def test_a_file_that_lacks_its_last_delimiter_alone_is_whole(tmp_path, lost):
    data, values = jpeg_file(tmp_path)
    assert np.array_equal(decode.decode(quietly_parsed(data[:-lost]), 0).values, values)


@pytest.mark.parametrize("lost", [9, 60, 400])
def test_compressed_pixels_that_end_too_early_are_truncated(tmp_path, lost):
    data, _ = jpeg_file(tmp_path)
    with pytest.raises(RejectedError) as caught:
        quietly_parsed(data[:-lost])
    assert caught.value.reason is Reason.TRUNCATED


def test_fewer_fragments_than_frames_are_truncated(tmp_path):
    one, two = (len(jpeg_file(tmp_path, frames)[0]) for frames in (1, 2))
    data, _ = jpeg_file(tmp_path, 2)
    with pytest.raises(RejectedError, match="1 fragments of 2 frames") as caught:
        quietly_parsed(data[: -8 - (two - one)])
    assert caught.value.reason is Reason.TRUNCATED


def test_a_header_that_ends_too_early_is_truncated(tmp_path):
    dataset = described(
        smooth(12), stored=12, syntax=ExplicitVRLittleEndian, data=smooth(12).tobytes()
    )
    inner = Dataset()
    inner.PatientID = "x" * 60
    dataset.ReferencedImageSequence = [inner]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    data = written(dataset, tmp_path)
    with pytest.raises(RejectedError) as caught:
        quietly_parsed(data[: data.index(b"xxxx") + 8])
    assert caught.value.reason is Reason.TRUNCATED


def test_a_deflated_file_that_ends_too_early_is_truncated(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (64, 64), np.uint16)
    data = written(
        described(values, stored=12, syntax=DeflatedExplicitVRLittleEndian, data=values.tobytes()),
        tmp_path,
    )
    assert np.array_equal(decode.decode(quietly_parsed(data), 0).values, values)
    with pytest.raises(RejectedError) as caught:
        quietly_parsed(data[:-500])
    assert caught.value.reason is Reason.TRUNCATED


# What is no image, and what is no anatomy.


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.2"}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, Reason.NOT_AN_IMAGE),
        ({"SpectroscopyData": bytes(8)}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": IMAGE_CLASS}, Reason.TRUNCATED),
        ({"SOPClassUID": "1.3.46.670589.11.0.0.12.4"}, Reason.TRUNCATED),
        ({}, Reason.TRUNCATED),
    ],
)
def test_without_pixels_the_class_says_what_a_file_is(tools, tags, reason):
    dataset = tools.with_tags(**tags).dataset(0)
    with pytest.raises(RejectedError) as caught:
        read_slices(dataset, file=0, name="")
    assert caught.value.reason is reason


def test_raw_data_is_no_image_though_it_has_pixels(tools):
    dataset = tools.with_tags(SOPClassUID="1.2.840.10008.5.1.4.1.1.66").dataset(0)
    dataset.PixelData = tools.phantom.picture(0).tobytes()
    with pytest.raises(RejectedError, match="Raw Data") as caught:
        read_slices(dataset, file=0, name="")
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def private(block, creator, element, vr, value):
    dataset = Dataset()
    dataset.add_new(block, "LO", creator)
    dataset.add_new(element, vr, value)
    return dataset


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (item(ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]), True),
        (item(ImageType=["DERIVED", "PRIMARY", "ADC"]), True),
        (item(ImageType=["ORIGINAL", "PRIMARY", "M"]), False),
        (item(AcquisitionContrast="DIFFUSION"), True),
        (item(AcquisitionContrast="T2"), False),
        (item(DiffusionBValue=800.0), True),
        (item(DiffusionBValue=0.0), False),
        (private(0x00190010, "SIEMENS MR HEADER", 0x0019100C, "IS", "1000"), True),
        (private(0x00190010, "SIEMENS MR HEADER", 0x0019100C, "UN", b"1000"), True),
        (private(0x00190010, "SOMEBODY", 0x0019100C, "IS", "1000"), False),
        (private(0x20010010, "Philips Imaging DD 001", 0x20011003, "FL", 1000.0), True),
        (private(0x20010010, "Philips Imaging DD 001", 0x20011003, "FL", 0.0), False),
        (private(0x20010010, "Philips Imaging DD 001", 0x20011003, "UN", b"\0\0zD"), True),
        (
            item(
                PerFrameFunctionalGroupsSequence=[
                    item(),
                    item(MRDiffusionSequence=[item(DiffusionBValue=500.0)]),
                ]
            ),
            True,
        ),
        (
            item(
                SharedFunctionalGroupsSequence=[
                    item(MRDiffusionSequence=[item(DiffusionDirectionality="ISOTROPIC")])
                ]
            ),
            True,
        ),
        (
            item(
                SharedFunctionalGroupsSequence=[
                    item(MRDiffusionSequence=[item(DiffusionDirectionality="NONE")])
                ]
            ),
            False,
        ),
    ],
)
def test_diffusion_is_told_by_what_the_file_says(dataset, expected):
    assert shows_diffusion(dataset) is expected


@pytest.mark.parametrize("where", [0, 3])
def test_a_series_with_one_diffusing_file_is_other(tools, tmp_path, where):
    """The first file may be the one without: its b-value is 0."""

    def edit(dataset, index):
        dataset.SeriesDescription = "T2"
        dataset.DiffusionBValue = 0.0 if index != where else 800.0

    tools.phantom.write(tmp_path / "src", edit=edit)
    assert tools.cached(tmp_path / "src", tmp_path / "out").series["series_type"][0] == "other"


# Steps.


@pytest.mark.parametrize("missing", [1, 2])
def test_of_three_slices_with_one_missing_the_smaller_step_is_usual(tools, tmp_path, missing):
    phantom = tools.phantom
    phantom.write(tmp_path / "src")
    kept = {1, 2, 3, 4} - {missing + 1}
    for number in range(1, 8):
        if number not in kept:
            (tmp_path / "src" / f"{number}.dcm").unlink()
    attributes = tools.cached(tmp_path / "src", tmp_path / "out").attributes(0)
    assert attributes.spacing_mm[0] == 4.0
    assert attributes.flags == ("gap", "few_slices")
    assert all(np.allclose(stack.affine[:3, 0], phantom.step) for stack in attributes.stacks)
