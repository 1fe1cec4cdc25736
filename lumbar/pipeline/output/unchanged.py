"""Which series are stored already? Size and times of their files tell, without reading them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lumbar.cache.errors import FormatError
from lumbar.cache.source_records import SOURCES_SCHEMA, read_sources, write_sources
from lumbar.cache.volumes import CHUNK, METADATA, crc32c, volume_folder
from lumbar.pipeline.dicom.identity import SUFFIX, shared_uid
from lumbar.pipeline.series.convert import SeriesResult
from lumbar.pipeline.series.read import REVISION
from lumbar.pipeline.series.revisions import RULES
from lumbar.pipeline.series.task import SeriesTask
from lumbar.pipeline.source.archive import split_member
from lumbar.pipeline.source.scan import Identified

SETTLED_NS = 2 * 10**9
"""Younger files may change again without a new time: FAT stores times in steps of two seconds."""

Key = tuple[str, str]

_log = logging.getLogger(__name__)


class FileState(NamedTuple):
    """Size and times of a file by the system; no program can set ``changed_ns`` back."""

    nbytes: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """The files of a series as they were read, its other premises, and its stored volume."""

    files: Mapping[str, FileState]
    premises: str
    has_left_out: bool
    metadata_crc32c: int | None
    chunk_nbytes: int | None


@dataclass(slots=True)
class SourceRecord:
    """The source as earlier runs recorded it (``known``), and as this run finds it (``states``)."""

    known: dict[Key, SeriesRecord] = field(default_factory=dict)
    states: dict[str, FileState | None] = field(default_factory=dict)
    seen_ns: int = field(default_factory=time.time_ns)

    @classmethod
    def of(cls, cache: Path) -> SourceRecord:
        """Read the record of a cache, or return an empty one if it is damaged or absent."""
        try:
            rows = read_sources(cache).iter_rows()
        except FormatError as error:
            _log.warning("%s", error)
            return cls()
        return cls({(study_id, series_id): _stored(*rest) for study_id, series_id, *rest in rows})

    def stat_files(self, root: Path, paths: Iterable[str]) -> None:
        """Add the states of files; members of an archive have the archive's state."""
        prefix = f"{root}/"
        for path in paths:
            member = split_member(path)
            if member is None:
                self.states[path] = _stat_file(prefix + path)
                continue
            if member.archive not in self.states:
                self.states[member.archive] = _stat_file(prefix + member.archive)
            self.states[path] = self.states[member.archive]

    def identify(self, paths: Iterable[str]) -> tuple[list[Identified], list[str]]:
        """Return the files whose ids are known, and those whose header has to be read.

        If several studies share a UID, all their files are read if one is gone or has changed.
        """
        present = set(paths := list(paths))
        gone = {
            shared_uid(study_id)
            for (study_id, _), stored in self.known.items()
            if not present.issuperset(stored.files)
        }
        shared = {shared_uid(name) for key in self.known for name in key if SUFFIX.search(name)}
        series = {
            path: key
            for key, stored in self.known.items()
            if stored.premises.startswith(f"{RULES}|")
            and not (shared_uid(key[0]) in gone and shared & set(map(shared_uid, key)))
            for path in stored.files
        }
        known: list[Identified] = []
        unknown: list[str] = []
        for path in paths:
            key = series.get(path)
            state = self.states.get(path)
            if key is None or state is None or self.known[key].files[path] != state:
                unknown.append(path)
            else:
                known.append(Identified(path, *key))
        return known, unknown

    @staticmethod
    def find_neighbours(known: list[Identified], read: Iterable[str]) -> list[str]:
        """Remove from ``known`` the files of studies in ``read``, and return them, to be read too.

        Series that share a UID are parted by all files of their study.
        """
        studies = {shared_uid(study_id) for study_id in read}
        again = [item.path for item in known if shared_uid(item.study_id) in studies]
        known[:] = [item for item in known if shared_uid(item.study_id) not in studies]
        return again

    def find_unchanged(self, task: SeriesTask) -> SeriesResult | None:
        """Return the result of a stored series whose files and premises are unchanged, or None."""
        stored = self.known.get(task.key)
        if stored is None or stored.metadata_crc32c is None or stored.premises != premises(task):
            return None
        if stored.has_left_out and not task.knows_left_out:
            return None
        if stored.files != {path: self.states.get(path) for path in task.files}:
            return None
        if (stored.metadata_crc32c, stored.chunk_nbytes) != _stat_volume(task):
            return None
        nbytes = sum(state.nbytes for state in stored.files.values())
        return SeriesResult(
            *task.key,
            len(task.files),
            nbytes,
            cached=True,
            has_left_out=stored.has_left_out,
            reason=None,
            rejections=(),
        )

    def add(self, task: SeriesTask, result: SeriesResult) -> None:
        """Record the result of a series, if its files have settled."""
        self.known.pop(task.key, None)
        states = {path: self.states.get(path) for path in task.files}
        if not all(map(self._has_settled, states.values())):
            return
        metadata_crc32c, chunk_nbytes = (None, None) if result.reason else _stat_volume(task)
        self.known[task.key] = SeriesRecord(
            {path: state for path, state in states.items() if state is not None},
            premises(task),
            result.has_left_out,
            metadata_crc32c,
            chunk_nbytes,
        )

    def _has_settled(self, state: FileState | None) -> bool:
        newest = max(state.modified_ns, state.changed_ns) if state else self.seen_ns
        return newest < self.seen_ns - SETTLED_NS

    def write(self, cache: Path) -> None:
        """Write the record."""
        rows = [
            (
                *key,
                stored.premises,
                stored.has_left_out,
                stored.metadata_crc32c,
                stored.chunk_nbytes,
                list(stored.files),
                *([state[i] for state in stored.files.values()] for i in range(3)),
            )
            for key, stored in sorted(self.known.items())
        ]
        write_sources(cache, pl.DataFrame(rows, schema=SOURCES_SCHEMA, orient="row"))


def _stat_file(path: str) -> FileState | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # making a Path costs four times the call
    except OSError:
        return None  # reading the file raises with the cause
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def premises(task: SeriesTask) -> str:
    """Return everything a volume depends on, apart from the bytes of its files."""
    beside = f"{task.shares_uid}|{'|'.join(task.companions)}"
    return f"{RULES}|{REVISION}|{task.named}|{task.has_csv}|{beside}|{task.config!r}"


def _stored(
    premises: str,
    has_left_out: bool,  # noqa: FBT001  # a column
    metadata_crc32c: int | None,
    chunk_nbytes: int | None,
    paths: Sequence[str],
    *columns: Sequence[int],
) -> SeriesRecord:
    files = dict(zip(paths, map(FileState._make, zip(*columns, strict=True)), strict=True))
    return SeriesRecord(files, premises, has_left_out, metadata_crc32c, chunk_nbytes)


def _stat_volume(task: SeriesTask) -> tuple[int | None, int | None]:
    """Return the CRC-32C of a volume's metadata and the size of its chunk, None if it is absent."""
    folder = volume_folder(task.cache, *task.key)
    try:
        return crc32c((folder / METADATA).read_bytes()), (folder / CHUNK).stat().st_size
    except OSError:
        return None, None
