"""DICOMDIR: the list of a disk's files, held against the files that are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pydicom

DICOMDIR = "1.2.840.10008.1.3.10"
"""MediaStorageSOPClassUID of a directory."""

MAX_NAMED = 3
"""Missing files that a row names; of more it says how many."""


def is_directory(dataset: pydicom.Dataset) -> bool:
    """Tell if a data set is a DICOMDIR."""
    meta = getattr(dataset, "file_meta", {})
    return DICOMDIR in {meta.get("MediaStorageSOPClassUID"), dataset.get("SOPClassUID")}


def describe_directory(dataset: pydicom.Dataset, folder: Path) -> str:
    """Say how many files a DICOMDIR lists, and which of them are not below its folder.

    The files themselves are found like any others; nothing is opened by a name from the list.
    """
    listed = list(dict.fromkeys(_listed_files(dataset)))
    missing = [path for path in listed if not _is_there(folder, path)]
    text = f"a directory of {len(listed)} files"
    if missing:
        named = ", ".join(map(str, missing[:MAX_NAMED]))
        more = ", ..." if len(missing) > MAX_NAMED else ""
        text += f", {len(missing)} of them missing: {named}{more}"
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
