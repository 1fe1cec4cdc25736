"""DICOMDIR: a medium's list of its files, compared with the files that are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pydicom

from lumbar.pipeline.reject import first_of

DICOMDIR = "1.2.840.10008.1.3.10"
"""MediaStorageSOPClassUID of a directory."""

MAX_NAMED = 3
"""Missing files that a row names."""


def is_directory(dataset: pydicom.Dataset) -> bool:
    """Tell if a data set is a DICOMDIR."""
    meta = getattr(dataset, "file_meta", {})
    return DICOMDIR in {meta.get("MediaStorageSOPClassUID"), dataset.get("SOPClassUID")}


def describe_directory(dataset: pydicom.Dataset, folder: Path) -> str:
    """Describe how many files a DICOMDIR lists, and which of them are not below its folder.

    The files themselves are found like any others; no file is opened by a name from the list.
    """
    listed = list(dict.fromkeys(_listed_files(dataset)))
    missing = [path for path in listed if not _is_there(folder, path)]
    text = f"a directory of {len(listed)} files"
    if missing:
        text += f", {len(missing)} of them missing: {first_of(missing, MAX_NAMED)}"
    return text


def _listed_files(dataset: pydicom.Dataset) -> Iterator[PurePosixPath]:
    for record in dataset.get("DirectoryRecordSequence") or ():
        parts = record.get("ReferencedFileID")
        if parts:
            yield PurePosixPath(*([parts] if isinstance(parts, str) else map(str, parts)))


def _is_there(folder: Path, path: PurePosixPath) -> bool:
    """Tell if a listed file exists, in capitals as the standard has it or in small letters."""
    if path.is_absolute() or ".." in path.parts:
        return False
    return any((folder / name).is_file() for name in (path, PurePosixPath(str(path).lower())))
