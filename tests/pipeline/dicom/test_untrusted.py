"""Files that lie: bombs, depths and numbers that make no sense cost a row, never the run."""

import struct
import zlib
from dataclasses import replace

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from lumbar.pipeline.dicom import parse as parse_module
from lumbar.pipeline.dicom.decode import decode
from lumbar.pipeline.dicom.header import read_slices
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


@pytest.mark.parametrize("text", [b"nan", b"inf", b"1e9", b"-1.", b"0.0"])
def test_spacing_that_makes_no_sense(tools, tmp_path, text):
    tools.phantom.write(tmp_path / "src")
    path = tmp_path / "src" / "4.dcm"
    path.write_bytes(path.read_bytes().replace(b"1.5\\2", text + b"\\2"))
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.select("path", "reason").rows() == [("4.dcm", "bad_geometry")]


def test_offset_tables_that_lie_are_named(tools):
    """Offsets beyond the end, and an extended table of nonsense, end as a reason."""
    dataset = image(tools)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.compress(RLELossless, generate_instance_uid=False)
    frame = dataset.PixelData[16:]
    table = struct.pack("<HHII", 0xFFFE, 0xE000, 4, 2**31)
    for change in ("basic", "extended"):
        if change == "basic":
            dataset.PixelData = table + frame
        else:
            dataset.PixelData = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + frame
            dataset.ExtendedOffsetTable = struct.pack("<Q", 2**40)
            dataset.ExtendedOffsetTableLengths = struct.pack("<Q", 2**40)
        with quiet_pydicom(), pytest.raises(RejectedError) as caught:
            decode(dataset, 0)
        assert caught.value.reason is Reason.UNDECODABLE


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


def test_frames_fewer_than_the_header_says(tools):
    dataset = image(tools)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.5")
    dataset.PixelData = encapsulate([b"\0\0"])
    with quiet_pydicom(), pytest.raises(RejectedError) as caught:
        decode(dataset, 3)
    assert caught.value.reason is Reason.UNDECODABLE


def test_deflated_bomb_of_a_bare_tree_is_a_row(tools, tmp_path, monkeypatch):
    """The scan asks for a few elements, for which pydicom would inflate all of it."""
    monkeypatch.setattr(parse_module, "MAX_INFLATED_BYTES", 2**20)
    tools.phantom.write(tmp_path / "src")
    (tmp_path / "src" / "bomb").write_bytes(deflated(image(tools), bytes(2**24)))
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.select("path", "reason").rows() == [("bomb", "too_large")]
    assert cache.volume(0).shape[0] == 7


def write_directory(target, paths):
    """Write a DICOMDIR, its names as wild as a disk may have them."""
    with quiet_pydicom():
        directory_of(paths).save_as(target, enforce_file_format=False)


def directory_of(paths):
    dataset = pydicom.Dataset()
    dataset.FileSetID = "DISK"
    records = []
    for path in paths:
        record = pydicom.Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", path.split("/")
        records.append(record)
    dataset.DirectoryRecordSequence = records
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.3.10")
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.preamble = bytes(128)
    return dataset


def test_directory_says_what_is_missing_and_leads_nowhere(tools, tmp_path):
    """A DICOMDIR beside its files: they are found by themselves, and none outside is looked at."""
    tools.phantom.write(tmp_path / "src" / "disk" / "image")
    for number in range(1, 8):
        path = tmp_path / "src" / "disk" / "image" / f"{number}.dcm"
        path.rename(path.with_name(f"im{number}"))
    (tmp_path / "src" / "disk" / "image" / "im4").unlink()
    listed = [f"IMAGE/IM{number}" for number in range(1, 8)]
    (tmp_path / "outside").write_bytes(b"x")
    listed += ["../../outside", str(tmp_path / "outside").lstrip("/")]
    write_directory(tmp_path / "src" / "disk" / "DICOMDIR", listed)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    (row,) = cache.rejected.rows(named=True)
    assert (row["path"], row["reason"]) == ("disk/DICOMDIR", "not_an_image")
    assert row["detail"].startswith(
        "a directory of 9 files, 3 of them missing: IMAGE/IM4, ../../outside, "
    )
    assert cache.attributes(0).instance_numbers == (1, 2, 3, 5, 6, 7)


def test_directory_that_is_complete_says_so(tools, tmp_path):
    replace(tools.phantom, depth=2).write(tmp_path / "src")
    write_directory(tmp_path / "src" / "DICOMDIR", ["1.dcm", "2.dcm"])
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected["detail"].to_list() == ["a directory of 2 files"]
