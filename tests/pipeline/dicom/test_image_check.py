"""Which data sets are images: by their class, size, type and number of tiles."""

import struct

import pydicom
import pytest
from fixtures.dicom import IMAGE_CLASS

from lumbar.pipeline.dicom.header import read_slices
from lumbar.pipeline.reject import Reason, RejectedError


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


def image(tools):
    dataset = tools.phantom.dataset(0)
    dataset.PixelData = tools.phantom.picture(0).tobytes()
    return dataset


@pytest.mark.parametrize("frames", [1, 7])
def test_bound_of_pixels_is_the_callers(tools, frames):
    dataset = image(tools)
    dataset.NumberOfFrames = frames
    size = dataset.Rows * dataset.Columns * frames
    with pytest.raises(RejectedError, match=f"x {frames} pixels, more than {size - 1}") as caught:
        read_slices(dataset, file=0, name="", max_pixels=size - 1)
    assert caught.value.reason is Reason.TOO_LARGE
    if frames == 1:
        assert len(read_slices(dataset, file=0, name="", max_pixels=size)) == 1


def test_compressed_bomb_is_refused_before_it_is_decoded(tools, tmp_path):
    """A header of four gigapixels around a frame of a few bytes."""

    def inflate_claim(dataset, index):
        if index == 3:
            dataset.Rows = dataset.Columns = 65535

    tools.phantom.write(tmp_path / "src", rle=True)
    path = tmp_path / "src" / "4.dcm"
    dataset = pydicom.dcmread(path)
    inflate_claim(dataset, 3)
    dataset.save_as(path)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.select("path", "reason").rows() == [("4.dcm", "too_large")]
    assert "65535 x 65535 x 1 pixels" in cache.rejected["detail"][0]


def test_siemens_mosaic_without_its_image_type_is_refused(tools):
    dataset = image(tools)
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    for value, vr in ((36, "US"), (struct.pack("<H", 36), "UN")):
        block.add_new(0x0A, vr, value)
        with pytest.raises(RejectedError, match="NumberOfImagesInMosaic 36") as caught:
            read_slices(dataset, file=0, name="")
        assert caught.value.reason is Reason.MOSAIC
    block.add_new(0x0A, "US", 1)
    assert len(read_slices(dataset, file=0, name="")) == 1
