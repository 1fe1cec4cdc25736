"""Zip and tar archives in a source: their members are files, read in memory and never unpacked.

A member is named ``folder/archive.zip!/member``. Archives are not trusted: sizes are bounded, names
are checked, links and archives inside archives are left out.
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
"""A list of so many takes some 150 MB per process; the whole data set has 147,218 files."""

MAX_GROWTH = 100
"""An archive of more than `SMALL_BYTES` whose members are more than this many times its size is a
bomb: deflate reaches a factor of 1,000, DICOM files one of 10."""

SMALL_BYTES = 2**30

OPEN_ARCHIVES = 4
"""Archives kept open per process: most of a task's series lie in one."""

_SUFFIX = r"\.(?:zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)"
_ARCHIVE = re.compile(rf".*{_SUFFIX}", re.IGNORECASE | re.DOTALL)
_MEMBER = re.compile(rf"(.*?{_SUFFIX})!/(.+)", re.IGNORECASE | re.DOTALL)
_ENCRYPTED = 0x1
_END_BYTES = 2**16 + 100
"""The end record of a zip file lies within these last bytes: its comment has 64 KB at most."""
_MEMBER_BYTES = 512
"""Bytes per member in a zip file's list: 46, its name, dates and owner."""
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

Archive = zipfile.ZipFile | tarfile.TarFile

_opened: OrderedDict[tuple[Path, int, int], Archive] = OrderedDict()


class Member(NamedTuple):
    """A file in an archive: the archive's path relative to the source, and the member's name."""

    archive: str
    name: str


def is_archive(name: str) -> bool:
    """Tell by its name whether a file is an archive."""
    return _ARCHIVE.fullmatch(name) is not None


def split_member(path: str) -> Member | None:
    """Return the archive and the member that a path names, or None for a file on the disk."""
    found = _MEMBER.fullmatch(path) if "!/" in path else None
    return Member(found[1], found[2]) if found else None


def without_suffix(archive: str) -> str:
    """Return an archive's path without ``.zip`` and the like."""
    return re.sub(rf"{_SUFFIX}$", "", archive, flags=re.IGNORECASE)


def list_members(root: Path, archive: str) -> Iterator[str | Rejection]:
    """Yield the paths of an archive's members in order, and a row for each that is left out.

    A DICOM file that is only named like an archive is yielded as it is.
    """
    try:
        opened = _open(root / archive)
        # Of several members with one name the last one counts.
        problems = dict(
            _zip_problems(opened) if isinstance(opened, zipfile.ZipFile) else _tar_problems(opened)
        )
    except RejectedError as error:
        yield Rejection("", "", archive, error.reason, error.detail)
        return
    except (OSError, *_DAMAGED) as error:
        if _is_dicom(root / archive):
            yield archive
        else:
            yield Rejection("", "", archive, Reason.ARCHIVE, describe(error))
        return
    for name, problem in sorted(problems.items()):
        path = f"{archive}!/{name}"
        yield path if problem is None else Rejection("", "", path, *problem)


def open_file(root: Path, path: str) -> io.BufferedIOBase:
    """Open a file of a source, on the disk or in an archive; seeking forwards costs no memory.

    Raises
    ------
    RejectedError
        If the archive no longer has such a file, or is damaged.
    OSError
        If the file or the archive cannot be read.
    """
    member = split_member(path)
    if member is None:
        return (root / path).open("rb")
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


def read_file(root: Path, path: str, max_bytes: int) -> bytes:
    """Read a file of a source; raise as `open_file` does, and `RejectedError` for a large member.

    No more than ``max_bytes`` are ever read: the size in an archive's list may be wrong. A file on
    the disk that is larger is cut there.
    """
    with open_file(root, path) as file:
        if split_member(path) is None:
            return file.read(max_bytes)
        try:
            data = file.read(max_bytes + 1)
        except _DAMAGED as error:
            raise RejectedError(Reason.ARCHIVE, describe(error)) from error
    if len(data) > max_bytes:
        raise RejectedError(Reason.TOO_LARGE, f"more than {max_bytes} bytes")
    return data


def _open(path: Path) -> Archive:
    """Return an open archive; it is opened again after its file has changed."""
    status = path.stat()
    version = path, status.st_mtime_ns, status.st_size
    if version not in _opened:
        opens = _open_zip if path.suffix.lower() == ".zip" else _open_tar
        _opened[version] = opens(path, status.st_size)
        if len(_opened) > OPEN_ARCHIVES:
            _opened.popitem(last=False)[1].close()
    _opened.move_to_end(version)
    return _opened[version]


def _open_zip(path: Path, nbytes: int) -> zipfile.ZipFile:
    _check_list(path)
    opened = zipfile.ZipFile(path)
    try:
        members = opened.infolist()
        _check_growth(sum(info.file_size for info in members), nbytes, len(members))
    except BaseException:
        opened.close()
        raise
    return opened


def _open_tar(path: Path, nbytes: int) -> tarfile.TarFile:
    """Open a tar archive and walk through it once, stopping where it grows too large."""
    opened = tarfile.open(path, "r:*")  # noqa: SIM115  # kept open, see `OPEN_ARCHIVES`
    try:
        for count, info in enumerate(opened, 1):
            _check_growth(info.offset_data + info.size, nbytes, count)
    except BaseException:
        opened.close()
        raise
    return opened


def _check_list(path: Path) -> None:
    """Refuse a zip file whose list alone would fill the memory (APPNOTE.TXT, 4.3.14 to 4.3.16)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0:
            return  # no zip file: opening it raises
        nbytes = struct.unpack_from("<I", tail, at + 12)[0]
        if nbytes == 2**32 - 1 and tail[at - 20 : at - 16] == b"PK\6\7":
            file.seek(struct.unpack_from("<Q", tail, at - 12)[0])
            nbytes = struct.unpack_from("<Q", file.read(56), 40)[0]
    if nbytes > MAX_MEMBERS * _MEMBER_BYTES:
        raise RejectedError(Reason.ARCHIVE, f"a list of members of {nbytes} bytes")


def _check_growth(total: int, archive_bytes: int, count: int) -> None:
    """Refuse an archive of too many members, or of members that are far larger than itself."""
    if count > MAX_MEMBERS:
        raise RejectedError(Reason.ARCHIVE, f"more than {MAX_MEMBERS} members")
    if total > max(SMALL_BYTES, MAX_GROWTH * archive_bytes):
        raise RejectedError(
            Reason.ARCHIVE, f"{archive_bytes} bytes that become {total} or more: a bomb"
        )


Problem = tuple[Reason, str]
"""Why a member is left out."""


def _zip_problems(opened: zipfile.ZipFile) -> Iterator[tuple[str, Problem | None]]:
    """Yield the files of a zip archive by name, None for a file without a problem."""
    for info in opened.infolist():
        if info.is_dir():
            continue
        problem = _find_problem(info.filename)
        if info.flag_bits & _ENCRYPTED:
            problem = Reason.ARCHIVE, "encrypted"
        yield info.filename, problem


def _tar_problems(opened: tarfile.TarFile) -> Iterator[tuple[str, Problem | None]]:
    """Yield the files of a tar archive by name, None for a file without a problem."""
    for info in opened.getmembers():
        if info.isdir():
            continue
        problem = _find_problem(info.name)
        if info.issym() or info.islnk():
            problem = Reason.LINK, f"in an archive, to {info.linkname}"
        elif not info.isreg():
            problem = Reason.ARCHIVE, "not a regular file"
        yield info.name.removeprefix("./"), problem


def _find_problem(name: str) -> Problem | None:
    """Return why a member of this name is left out, None if it is not."""
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
