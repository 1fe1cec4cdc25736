"""Files that are left out: each by its reason, none of them an end."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless

from lumbar.pipeline import flags, reject
from lumbar.pipeline.dicom import decode
from lumbar.pipeline.dicom.header import MAX_PIXELS
from lumbar.pipeline.dicom.parse import quiet_pydicom
from lumbar.pipeline.reject import Reason, Rejection, tidy
from lumbar.pipeline.series import read as source_module

BROKEN = 3
"""The slice that a test breaks; the other six stay."""


def set_tag(keyword, value):
    def edit(dataset):
        setattr(dataset, keyword, value)

    return edit


def drop_tag(keyword):
    def edit(dataset):
        delattr(dataset, keyword)

    return edit


def shorten(dataset):
    dataset.PixelData = dataset.PixelData[:-100]


def no_image(dataset):
    del dataset.PixelData, dataset.Rows, dataset.Columns


def colour(dataset):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0


def segment(dataset):
    dataset.SegmentSequence = [pydicom.Dataset()]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (drop_tag("PixelData"), Reason.TRUNCATED),
        (colour, Reason.COLOUR),
        (segment, Reason.UNSUPPORTED_PIXELS),
        (set_tag("PhotometricInterpretation", "PALETTE COLOR"), Reason.COLOUR),
        (set_tag("BitsAllocated", 32), Reason.UNSUPPORTED_PIXELS),
        (set_tag("BitsStored", 17), Reason.UNSUPPORTED_PIXELS),
        (set_tag("BitsStored", 12), Reason.UNSUPPORTED_PIXELS),
        (set_tag("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), Reason.MOSAIC),
        (set_tag("NumberOfFrames", MAX_PIXELS), Reason.TOO_LARGE),
        (set_tag("NumberOfFrames", 2), Reason.NO_POSITION),
        (no_image, Reason.NOT_AN_IMAGE),
        (drop_tag("Rows"), Reason.UNREADABLE),
        (drop_tag("ImagePositionPatient"), Reason.NO_POSITION),
        (drop_tag("ImageOrientationPatient"), Reason.NO_POSITION),
        (drop_tag("PixelSpacing"), Reason.BAD_GEOMETRY),
        (set_tag("PixelSpacing", ["0", "1"]), Reason.BAD_GEOMETRY),
        (set_tag("PixelSpacing", ["1", "1", "1"]), Reason.BAD_GEOMETRY),
        (set_tag("ImagePositionPatient", ["1e9", "0", "0"]), Reason.BAD_GEOMETRY),
        (set_tag("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"]), Reason.BAD_GEOMETRY),
        (set_tag("RescaleSlope", "0"), Reason.BAD_RESCALE),
        (shorten, Reason.TRUNCATED),
    ],
    ids=lambda value: str(value) if isinstance(value, Reason) else "",
)
def test_file_is_rejected_and_the_series_goes_on(tools, tmp_path, edit, reason):
    def break_one(dataset, index):
        if reason is Reason.BAD_RESCALE:
            dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"
        if index == BROKEN:
            edit(dataset)

    tools.phantom.write(tmp_path / "src", edit=break_one)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.select("study_id", "series_id", "path", "reason").rows() == [
        ("100", "100.1", "4.dcm", reason)
    ]
    assert cache.rejected["detail"][0]
    assert cache.attributes(0).instance_numbers == (1, 2, 3, 5, 6, 7)
    assert set(cache.attributes(0).flags) == {"gap", "files_left_out"}


def test_numbers_that_are_none_are_rejected(tools, tmp_path):
    """What no writer writes: the bytes are changed after writing."""
    tools.phantom.write(tmp_path / "src")
    path = tmp_path / "src" / "4.dcm"
    data = path.read_bytes()
    for old, new in ((b"1.5\\2", b"nan\\2"), (b"1.5\\2", b"abc\\2"), (b"1.5\\2", b"inf\\2")):
        assert old in data
        path.write_bytes(data.replace(old, new))
        cache = tools.cached(tmp_path / "src", tmp_path / "out")
        assert cache.rejected["reason"].to_list() == ["bad_geometry"]


def test_bytes_that_the_decoder_refuses(tools, tmp_path):
    tools.phantom.write(tmp_path / "src", rle=True)
    path = tmp_path / "src" / "4.dcm"
    data = path.read_bytes()
    path.write_bytes(data[:-200] + bytes(190) + data[-10:])
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected["reason"].to_list() == ["undecodable"]
    assert "RLE Lossless" in cache.rejected["detail"][0]


def test_compressed_pixels_that_end_early(tools, tmp_path):
    tools.phantom.write(tmp_path / "src", rle=True)
    path = tmp_path / "src" / "4.dcm"
    path.write_bytes(path.read_bytes()[:-300])
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected["reason"].to_list() == ["truncated"]
    assert cache.attributes(0).instance_numbers == (1, 2, 3, 5, 6, 7)


@pytest.mark.parametrize("limit", [None, "", 3])
def test_padding_range_that_is_empty_costs_nothing(tools, tmp_path, limit):
    def pad(dataset, _):
        dataset.PixelPaddingValue = 3
        dataset.PixelPaddingRangeLimit = limit

    tools.phantom.write(tmp_path / "src", edit=pad)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.is_empty()
    assert cache.series["n_files"].to_list() == [7]


def test_unforeseen_failure_of_one_file_costs_one_file(tools, tmp_path, monkeypatch):
    genuine = source_module.decode
    tools.phantom.write(tmp_path / "src")

    def fails_once(dataset, frame, **options):
        if dataset.InstanceNumber == 4:
            raise TypeError
        return genuine(dataset, frame, **options)

    monkeypatch.setattr(source_module, "decode", fails_once)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected["reason"].to_list() == ["unreadable"]
    assert cache.series["n_files"].to_list() == [7]
    assert cache.volume(0).shape[0] == 6


def test_unknown_transfer_syntax(tools, tmp_path):
    tools.phantom.write(tmp_path / "src")
    path = tmp_path / "src" / "4.dcm"
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.77"))
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.row(0)[-2:] == ("unsupported_transfer_syntax", "1.2.840.10008.1.2.77")


def test_series_of_one_value_is_rejected(tools, tmp_path):
    def black(dataset, _):
        dataset.PixelData = bytes(len(dataset.PixelData))

    tools.phantom.write(tmp_path / "src", edit=black)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.rows() == [("100", "100.1", "", "constant", "every pixel is 0.0")]


@pytest.mark.parametrize("uid", ["../../etc", "a b", ".hidden"])
def test_id_that_cannot_name_a_folder_is_rejected(tools, tmp_path, uid):
    def rename(dataset, _):
        dataset["SeriesInstanceUID"].VR = "LO"
        dataset.SeriesInstanceUID = uid

    tools.phantom.write(tmp_path / "src", edit=rename)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.select("series_id", "reason").rows() == [(uid, "unsafe_id")]
    assert {path.name for path in tmp_path.iterdir()} == {"src", "out"}


def test_file_without_uid_is_rejected(tools, tmp_path):
    def nameless(dataset, index):
        if index == 0:
            del dataset.SeriesInstanceUID

    tools.phantom.write(tmp_path / "src", edit=nameless)
    rejected = tools.cached(tmp_path / "src", tmp_path / "out").rejected
    assert rejected.rows() == [("100", "", "1.dcm", "no_uid", "no SeriesInstanceUID")]


def test_duplicate_slice_takes_the_place_of_a_broken_one(tools, tmp_path):
    def shorten_first(dataset, index):
        if index == BROKEN:
            shorten(dataset)

    tools.phantom.write(tmp_path / "src", edit=shorten_first)
    replace(tools.phantom, instance_numbers=tuple(range(11, 18))).write(tmp_path / "src")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.attributes(0).instance_numbers == (1, 2, 3, 14, 5, 6, 7)
    counts = cache.rejected["reason"].value_counts()
    assert dict(counts.iter_rows()) == {"truncated": 1, "repeated_position": 6}


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_encodings_of_pydicoms_own_file_are_one_picture(name):
    first, other = (
        pydicom.dcmread(get_testdata_file(file, download=False)) for file in ("MR_small.dcm", name)
    )
    with quiet_pydicom():  # it warns of the padded one
        found = decode.decode(other, 0)
    assert np.array_equal(found.values, decode.decode(first, 0).values)
    assert np.array_equal(found.values, first.pixel_array)


def test_truncated_file_of_pydicom_is_rejected(tools, tmp_path):
    source = get_testdata_file("MR_truncated.dcm", download=False)
    (tmp_path / "src").mkdir()
    shutil.copy(source, tmp_path / "src" / "a")
    rejected = tools.cached(tmp_path / "src", tmp_path / "out").rejected
    assert rejected["reason"].to_list() == ["truncated"]
    assert rejected["detail"][0] == "8130 of 8192 bytes"


def test_lossless_jpeg_2000_of_signed_values(tools, tmp_path):
    dataset = pydicom.dcmread(get_testdata_file("MR_small_jp2klossless.dcm", download=False))
    assert dataset.file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert decode.decode(dataset, 0).values.dtype == np.int16


def test_every_reason_and_flag_has_its_sentence():
    for names, sentences in ((Reason, reject.SENTENCES), (flags.Flag, flags.SENTENCES)):
        assert set(sentences) == set(names)
        assert all(text.endswith(".") and text[0].isupper() for text in sentences.values())


def test_detail_is_the_same_in_every_run():
    assert tidy("<_io.BytesIO object at 0x7f3bd8ad2>\n twice") == "<_io.BytesIO object at 0x> twice"
    assert len(tidy("x" * 9999)) == 300
    assert Rejection("1", "", "", Reason.LINK, "") < Rejection("1", "", "", Reason.NO_UID, "")


def test_page_lists_every_reason_and_flag():
    page = (Path(__file__).parents[2] / "docs/what-is-accepted.md").read_text()
    for sentences in (reject.SENTENCES, flags.SENTENCES):
        for name, sentence in sentences.items():
            assert f"| `{name}` | {sentence} |\n" in page
