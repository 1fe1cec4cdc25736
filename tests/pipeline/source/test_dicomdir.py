"""A DICOMDIR: its row names the listed files that are missing."""

from dataclasses import replace

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
)

from lumbar.pipeline.dicom.parse import quiet_pydicom


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
