"""Find the files of a source and, in a bare tree, the study and series of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from lumbar.cache.format import is_safe_id
from lumbar.pipeline.dicom.contrast import (
    CONTRAST_TAGS,
    PATIENT_TAGS,
    Traits,
    read_contrast,
    read_patient,
)
from lumbar.pipeline.dicom.elements import value_of
from lumbar.pipeline.dicom.parse import (
    HEAD_BYTES,
    MAX_FILE_BYTES,
    is_deflated,
    parse,
    quiet_pydicom,
)
from lumbar.pipeline.reject import Reason, RejectedError, Rejection, describe
from lumbar.pipeline.source.archive import (
    is_archive,
    list_members,
    open_file,
    read_file,
    split_member,
)
from lumbar.pipeline.source.dicomdir import describe_directory, is_directory

_OF_THE_SYSTEM = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "lost+found"),
    *("$recycle.bin", "system volume information"),
}
"""Files that macOS, Windows, network disks and Linux leave in folders, in small letters."""

_TAGS = (
    *("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "SpecificCharacterSet"),
    *CONTRAST_TAGS,
    *PATIENT_TAGS,
)


@dataclass(frozen=True, slots=True)
class Identified:
    """A file, by its path relative to the source, and its study and series.

    ``traits`` part the files that share a UID; None if the ids are those of an earlier run.
    """

    path: str
    study_id: str
    series_id: str
    traits: Traits | None = None


def walk(root: Path, skip: Path, *, inside: Path | None = None) -> Iterator[str | Rejection]:
    """Yield the files below a folder in order, relative to it, and rows for what is left out.

    The folder ``skip`` is left out: a cache may lie inside its own source. So are files that a
    system leaves behind (`is_of_the_system`), in archives too. A link to a file is a file if its
    target is ``inside`` a folder, by default this one. Links that lead out of it are not followed,
    and neither are links to folders, which may lead in a circle. The members of an archive are
    files (`lumbar.pipeline.source.archive`).

    Raises
    ------
    OSError
        If the source cannot be read or is gone.
    """
    inside = (inside or root).resolve()
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            if not folder or is_gone(root):
                raise  # the whole source cannot be read, not only one folder
            yield Rejection("", "", folder, Reason.UNREADABLE, f"{error.strerror}")
            continue
        inner = []
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_of_the_system(entry.name):
                continue
            if not _is_text(entry.name):
                shown = os.fsencode(path).decode("utf-8", "backslashreplace")
                yield Rejection("", "", shown, Reason.UNREADABLE, "a name that is not UTF-8")
            elif entry.is_symlink() and not _is_file_inside(entry.path, inside):
                yield Rejection("", "", path, Reason.LINK, _target(entry.path))
            elif entry.is_file():
                if is_archive(entry.name):
                    yield from _real_members(root, path)
                else:
                    yield path
            elif not entry.is_dir():
                yield Rejection("", "", path, Reason.UNREADABLE, "not a regular file")
            elif entry.name != skip.name or Path(entry.path).resolve() != skip:
                inner.append(path)
        folders.extend(reversed(inner))


def is_of_the_system(name: str) -> bool:
    """Tell whether a file or folder is hidden or left behind by a system, and so not the user's.

    Examples are ``.DS_Store`` and ``._1.dcm`` of macOS.
    """
    is_hidden = name.startswith(".") and not name.startswith("..")
    return is_hidden or name.lower() in _OF_THE_SYSTEM


def _real_members(root: Path, archive: str) -> Iterator[str | Rejection]:
    """Yield what an archive holds, without the files that a system left in it."""
    for item in list_members(root, archive):
        member = split_member(item if isinstance(item, str) else item.path)
        parts = [] if member is None else member.name.split("/")
        if not any(is_of_the_system(part) for part in parts if part != "."):
            yield item


def _is_text(name: str) -> bool:
    """Tell whether a file name is UTF-8, as tables need it: on old disks some are Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_file_inside(link: str, inside: Path) -> bool:
    """Tell whether a link leads to an existing file below a folder."""
    try:
        target = Path(link).resolve(strict=True)
    except (OSError, RuntimeError):  # it leads to nothing or in a circle
        return False
    return target.is_file() and target.is_relative_to(inside)


def _target(link: str) -> str:
    return os.fsencode(os.readlink(link)).decode("utf-8", "backslashreplace")  # noqa: PTH115


def find_study_folders(images: Path, skip: Path) -> list[str]:
    """Return the study folders of the data set's layout in order.

    A study is a folder whose name is an id and that holds a folder that is not empty.
    """
    with os.scandir(images) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir()
            and is_safe_id(entry.name)
            and not is_of_the_system(entry.name)
            and Path(entry.path).resolve() != skip
            and _is_study(entry.path)
        )


def _is_study(folder: str) -> bool:
    """Tell whether any folder in a folder holds something."""
    try:
        with os.scandir(folder) as entries:
            return any(
                entry.is_dir() and not is_of_the_system(entry.name) and _holds_any(entry.path)
                for entry in entries
            )
    except OSError:
        return True  # unknown, and a study too many does less harm than one too few


def _holds_any(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(not is_of_the_system(entry.name) for entry in entries)
    except OSError:
        return True


def identify(root: Path, paths: Sequence[str]) -> list[Identified | Rejection]:
    """Return the ids of each file of a bare tree, or the row of a file that has none."""
    with quiet_pydicom():
        return [_identify(root, path) for path in paths]


def _identify(root: Path, path: str) -> Identified | Rejection:
    try:
        dataset = _read_identity(root, path)
        study_id = str(value_of(dataset, "StudyInstanceUID") or "")
        series_id = str(value_of(dataset, "SeriesInstanceUID") or "")
        if study_id and series_id:
            traits = Traits(read_patient(dataset), read_contrast(dataset))
            return Identified(path, study_id, series_id, traits)
        if is_directory(dataset):
            return _reject_directory(root, path)
        if not value_of(dataset, "Rows"):
            kind = getattr(value_of(dataset, "SOPClassUID"), "name", "no SOPClassUID")
            return Rejection("", "", path, Reason.NOT_AN_IMAGE, f"no rows and no series ({kind})")
        lacks = "StudyInstanceUID" if not study_id else "SeriesInstanceUID"
        return Rejection(study_id, series_id, path, Reason.NO_UID, f"no {lacks}")
    except RejectedError as error:
        return Rejection("", "", path, error.reason, error.detail)
    except Exception as error:
        # The edge of one file: a parser of foreign bytes raises anything.
        return Rejection("", "", path, Reason.UNREADABLE, describe(error))


def _reject_directory(root: Path, path: str) -> Rejection:
    """Return the row of a DICOMDIR, which names the listed files that are missing."""
    listed = parse(read_file(root, path, MAX_FILE_BYTES))
    folder = (root / path).parent
    return Rejection("", "", path, Reason.NOT_AN_IMAGE, describe_directory(listed, folder))


def _read_identity(root: Path, path: str) -> pydicom.Dataset:
    """Return the elements of a file that identify it."""
    with open_file(root, path) as file:
        if not is_deflated(file.read(HEAD_BYTES)):  # else `parse` bounds what is inflated
            file.seek(0)
            with suppress(InvalidDicomError):
                dataset = pydicom.dcmread(file, specific_tags=list(_TAGS), stop_before_pixels=True)
                if len(dataset):
                    return dataset
    return parse(read_file(root, path, MAX_FILE_BYTES))


def is_gone(source: Path) -> bool:
    """Tell whether a source is no longer there, or is an empty mount point."""
    try:
        return not source.is_dir() or next(source.iterdir(), None) is None
    except OSError:
        return True
