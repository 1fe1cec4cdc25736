"""Parsing: deflated, truncated and deeply nested files end as a data set or a reason."""

import struct
import zlib

import imagecodecs
import numpy as np
import pydicom
import pytest
from fixtures.dicom import (
    PREFIX,
    described,
    file_bytes,
    smooth,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
)

from lumbar.pipeline.dicom import parse as parse_module
from lumbar.pipeline.dicom.decode import decode
from lumbar.pipeline.dicom.parse import parse, quiet_pydicom
from lumbar.pipeline.reject import Reason, RejectedError


def deflated(dataset, payload=b""):
    """Return a deflated file of a data set, with more bytes in the deflated part."""
    meta = pydicom.Dataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    uid = DeflatedExplicitVRLittleEndian.encode() + b"\0" * (
        len(DeflatedExplicitVRLittleEndian) % 2
    )
    group = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    plain = pydicom.filebase.DicomBytesIO()
    plain.is_little_endian, plain.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(plain, dataset)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = squeeze.compress(plain.getvalue() + payload) + squeeze.flush()
    return bytes(128) + b"DICM" + group + body


def image(tools):
    dataset = tools.phantom.dataset(0)
    dataset.PixelData = tools.phantom.picture(0).tobytes()
    return dataset


def test_deflated_bomb_is_not_inflated_whole(tools, monkeypatch):
    monkeypatch.setattr(parse_module, "MAX_INFLATED_BYTES", 2**20)
    asked = []
    monkeypatch.setattr(parse_module.pydicom, "dcmread", lambda *_, **__: asked.append(1))
    bomb = deflated(image(tools), bytes(2**24))
    assert len(bomb) < 2**16
    with pytest.raises(RejectedError, match="inflates to more than 1048576 bytes") as caught:
        parse(bomb)
    assert caught.value.reason is Reason.TOO_LARGE
    assert not asked


def test_deflated_file_within_the_bound_is_read(tools):
    dataset = parse(deflated(image(tools)))
    assert dataset.PixelData == tools.phantom.picture(0).tobytes()


def test_name_of_the_deflated_syntax_in_another_file_does_no_harm(tools, tmp_path):
    dataset = image(tools)
    dataset.SOPInstanceUID = DeflatedExplicitVRLittleEndian
    tools.save(dataset, tmp_path / "one.dcm")
    found = parse((tmp_path / "one.dcm").read_bytes())
    assert found.PixelData == dataset.PixelData


def nested(depth, *, defined):
    """Return a file whose sequence holds a sequence holds a sequence."""
    inner = b""
    for _ in range(depth):
        if defined:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sxxI", 0x0008, 0x1140, b"SQ", len(item)) + item
        else:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1) + inner
            item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
            inner = struct.pack("<HH2sxxI", 0x0008, 0x1140, b"SQ", 2**32 - 1) + item
    return inner


@pytest.mark.parametrize("defined", [False, True], ids=["undefined", "defined"])
def test_deep_nesting_ends(tools, tmp_path, defined):
    """Twenty thousand levels: more than any stack of calls, and an end."""
    tools.phantom.write(tmp_path / "src")
    path = tmp_path / "src" / "4.dcm"
    data = path.read_bytes()
    before = data.index(struct.pack("<HH", 0x0020, 0x000D))
    path.write_bytes(data[:before] + nested(20_000, defined=defined) + data[before:])
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    if defined:  # nobody looks into it
        assert cache.volume(0).shape[0] == 7
    else:
        assert cache.rejected.select("path", "reason").rows() == [("4.dcm", "unreadable")]


def test_deflated_bomb_of_a_bare_tree_is_a_row(tools, tmp_path, monkeypatch):
    """The scan asks for a few elements, for which pydicom would inflate all of it."""
    monkeypatch.setattr(parse_module, "MAX_INFLATED_BYTES", 2**20)
    tools.phantom.write(tmp_path / "src")
    (tmp_path / "src" / "bomb").write_bytes(deflated(image(tools), bytes(2**24)))
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.select("path", "reason").rows() == [("bomb", "too_large")]
    assert cache.volume(0).shape[0] == 7


def quietly_parsed(data):
    with quiet_pydicom():
        return parse(data)


def jpeg_file(folder, frames=1):
    values = smooth(12)
    frame = bytes(imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12))
    dataset = described(
        values, stored=12, syntax=PREFIX + "70", data=encapsulate([frame] * frames, has_bot=False)
    )
    dataset.NumberOfFrames = frames
    return file_bytes(dataset, folder), values


@pytest.mark.parametrize("lost", range(1, 9))
def test_a_file_that_lacks_its_last_delimiter_alone_is_whole(tmp_path, lost):
    data, values = jpeg_file(tmp_path)
    assert np.array_equal(decode(quietly_parsed(data[:-lost]), 0).values, values)


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
    data = file_bytes(dataset, tmp_path)
    with pytest.raises(RejectedError) as caught:
        quietly_parsed(data[: data.index(b"xxxx") + 8])
    assert caught.value.reason is Reason.TRUNCATED


def test_a_deflated_file_that_ends_too_early_is_truncated(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (64, 64), np.uint16)
    data = file_bytes(
        described(values, stored=12, syntax=DeflatedExplicitVRLittleEndian, data=values.tobytes()),
        tmp_path,
    )
    assert np.array_equal(decode(quietly_parsed(data), 0).values, values)
    with pytest.raises(RejectedError) as caught:
        quietly_parsed(data[:-500])
    assert caught.value.reason is Reason.TRUNCATED


def test_meta_group_alone_is_no_image(tmp_path):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with pytest.raises(RejectedError, match="no element"):
        parse(file_bytes(dataset, tmp_path))
