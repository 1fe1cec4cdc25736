"""Zip and tar archives in a source: their members are files, read in memory and never unpacked.

A member is named ``folder/archive.zip!/member``. Nothing that an archive says is believed: sizes
are bounded, names are checked, links and archives inside archives are left out.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from lumbar.pipeline.reject import Reason, RejectedError, Rejection, describe

MAX_MEMBERS = 250_000
"""A list of so many takes some 150 MB in each process; the whole data set has 147,218 files."""

MAX_GROWTH = 100
"""An archive whose members are so many times its size, and more than `SMALL_BYTES`, is a bomb:
deflate gets to 1,000, DICOM files to 10."""

SMALL_BYTES = 2**30

OPEN_ARCHIVES = 4
"""Kept open in a process: the series of a task mostly lie in one."""

_SUFFIX = r"\.(?:zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)"
_ARCHIVE = re.compile(rf".*{_SUFFIX}", re.IGNORECASE | re.DOTALL)
_MEMBER = re.compile(rf"(.*?{_SUFFIX})!/(.+)", re.IGNORECASE | re.DOTALL)
_ENCRYPTED = 0x1
_END_BYTES = 2**16 + 100
"""Within which the end of a zip file's list is named, behind a comment of 64 KB at most."""
_MEMBER_BYTES = 512
"""An entry of a zip file's list: 46 bytes, a name, dates and owner."""
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
)


_opened: OrderedDict[tuple[Path, int, int], zipfile.ZipFile | tarfile.TarFile] = OrderedDict()


class Member(NamedTuple):
    """A file of the source by the archive that holds it, relative to the source, and its name."""

    archive: str
    name: str


class _Entry(NamedTuple):
    """One entry of an archive: a file (``problem`` is None) or why it is left out."""

    name: str
    nbytes: int
    problem: tuple[Reason, str] | None


def is_archive(name: str) -> bool:
    """Tell by its name whether a file is an archive."""
    return _ARCHIVE.fullmatch(name) is not None


def split_member(path: str) -> Member | None:
    """Return the archive and the member that a path names, or None for a file of the disk."""
    found = _MEMBER.fullmatch(path) if "!/" in path else None
    return Member(found[1], found[2]) if found else None


def without_suffix(archive: str) -> str:
    """Return an archive's path without ``.zip`` and the like."""
    return re.sub(rf"{_SUFFIX}$", "", archive, flags=re.IGNORECASE)


def list_members(root: Path, archive: str) -> Iterator[str | Rejection]:
    """Yield the paths of an archive's members, in order, and what of it cannot be read.

    A DICOM file that is only named like an archive is yielded as it is.
    """
    try:
        entries = _entries(_open(root / archive))
    except RejectedError as error:
        yield Rejection("", "", archive, error.reason, error.detail)
        return
    except (OSError, *_DAMAGED) as error:
        if _is_dicom(root / archive):
            yield archive
        else:
            yield Rejection("", "", archive, Reason.ARCHIVE, describe(error))
        return
    for name in sorted(entries):
        path, problem = f"{archive}!/{name}", entries[name].problem
        yield path if problem is None else Rejection("", "", path, *problem)


def open_member(root: Path, member: Member) -> io.BufferedIOBase:
    """Open a member for reading; seeking forwards costs no memory.

    Raises
    ------
    RejectedError
        If the archive has no such file any more, or is damaged.
    OSError
        If the archive cannot be read.
    """
    try:
        opened = _open(root / member.archive)
        if isinstance(opened, zipfile.ZipFile):
            return cast("io.BufferedIOBase", opened.open(member.name))
        file = cast("io.BufferedIOBase | None", opened.extractfile(_find_info(opened, member.name)))
    except (KeyError, NotImplementedError, *_DAMAGED) as error:
        raise RejectedError(Reason.ARCHIVE, describe(error)) from error
    if file is None:
        raise RejectedError(Reason.ARCHIVE, "no regular file")
    return file


def _find_info(opened: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """Return a member by its name, which its archive may have with "./" before it."""
    try:
        return opened.getmember(name)
    except KeyError:
        return opened.getmember(f"./{name}")


def read_member(root: Path, member: Member, max_bytes: int) -> bytes:
    """Read a member whole; raise as `open_member` does, and `RejectedError` where it is too large.

    The size in the archive's list may lie, so that no more than ``max_bytes`` are ever read.
    """
    with open_member(root, member) as file:
        try:
            data = file.read(max_bytes + 1)
        except _DAMAGED as error:
            raise RejectedError(Reason.ARCHIVE, describe(error)) from error
    if len(data) > max_bytes:
        raise RejectedError(Reason.TOO_LARGE, f"more than {max_bytes} bytes")
    return data


def close_archives() -> None:
    """Close the archives that this process keeps open."""
    while _opened:
        _opened.popitem()[1].close()


def _open(path: Path) -> zipfile.ZipFile | tarfile.TarFile:
    """Return an archive, opened; opened again where its file was changed."""
    status = path.stat()
    version = path, status.st_mtime_ns, status.st_size
    if version not in _opened:
        _opened[version] = _open_anew(path, status.st_size)
        if len(_opened) > OPEN_ARCHIVES:
            _opened.popitem(last=False)[1].close()
    _opened.move_to_end(version)
    return _opened[version]


def _open_anew(path: Path, nbytes: int) -> zipfile.ZipFile | tarfile.TarFile:
    if path.suffix.lower() == ".zip":
        _check_list(path)
        opened = zipfile.ZipFile(path)
        try:
            _check_growth([info.file_size for info in opened.infolist()], nbytes)
        except BaseException:
            opened.close()
            raise
        return opened
    return _open_tar(path, nbytes)


def _check_list(path: Path) -> None:
    """Refuse a zip file whose list alone would fill the memory (APPNOTE.TXT, 4.3.14 to 4.3.16)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0:
            return  # no zip file: opening it says so
        nbytes = struct.unpack_from("<I", tail, at + 12)[0]
        if nbytes == 2**32 - 1 and tail[at - 20 : at - 16] == b"PK\6\7":
            file.seek(struct.unpack_from("<Q", tail, at - 12)[0])
            nbytes = struct.unpack_from("<Q", file.read(56), 40)[0]
    if nbytes > MAX_MEMBERS * _MEMBER_BYTES:
        raise RejectedError(Reason.ARCHIVE, f"a list of members of {nbytes} bytes")


def _open_tar(path: Path, nbytes: int) -> tarfile.TarFile:
    """Open a tar archive and walk through it once, stopping where it grows too large."""
    opened = tarfile.open(path, "r:*")  # noqa: SIM115  # kept open, see `OPEN_ARCHIVES`
    sizes = []
    try:
        for info in opened:
            sizes.append(info.size)
            _check_growth(sizes[-1:], nbytes, count=len(sizes), before=info.offset_data)
    except BaseException:
        opened.close()
        raise
    return opened


def _check_growth(
    sizes: list[int], archive_bytes: int, *, count: int | None = None, before: int = 0
) -> None:
    total = before + sum(sizes)
    if (len(sizes) if count is None else count) > MAX_MEMBERS:
        raise RejectedError(Reason.ARCHIVE, f"more than {MAX_MEMBERS} members")
    if total > max(SMALL_BYTES, MAX_GROWTH * archive_bytes):
        raise RejectedError(
            Reason.ARCHIVE, f"{archive_bytes} bytes that become {total} or more: a bomb"
        )


def _entries(opened: zipfile.ZipFile | tarfile.TarFile) -> dict[str, _Entry]:
    """Return the files of an archive by name; of those with one name the last counts."""
    found = _zip_entries(opened) if isinstance(opened, zipfile.ZipFile) else _tar_entries(opened)
    return {entry.name: entry for entry in found}


def _zip_entries(opened: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in opened.infolist():
        if info.is_dir():
            continue
        problem = _find_problem(info.filename)
        if info.flag_bits & _ENCRYPTED:
            problem = Reason.ARCHIVE, "encrypted"
        yield _Entry(info.filename, info.file_size, problem)


def _tar_entries(opened: tarfile.TarFile) -> Iterator[_Entry]:
    for info in opened.getmembers():
        if info.isdir():
            continue
        problem = _find_problem(info.name)
        if info.issym() or info.islnk():
            problem = Reason.LINK, f"in an archive, to {info.linkname}"
        elif not info.isreg():
            problem = Reason.ARCHIVE, "not a regular file"
        yield _Entry(info.name.removeprefix("./"), info.size, problem)


def _find_problem(name: str) -> tuple[Reason, str] | None:
    """Return why a member of this name is left out, None where it is not."""
    if is_archive(name):
        return Reason.ARCHIVE, "an archive inside an archive is not opened"
    if ".." in name.split("/") or name.startswith("/"):
        return Reason.ARCHIVE, "the name leads out of the archive"
    return None


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
