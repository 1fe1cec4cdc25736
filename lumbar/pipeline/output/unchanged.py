"""Which series are stored already, told by size and times of their files without reading them."""

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
from lumbar.pipeline.dicom.contrast import SUFFIX, shared_uid
from lumbar.pipeline.series.convert import SeriesResult
from lumbar.pipeline.series.files import REVISION, SeriesTask
from lumbar.pipeline.series.revisions import RULES
from lumbar.pipeline.source.archive import split_member
from lumbar.pipeline.source.scan import Identified

SETTLED_NS = 2 * 10**9
"""Files younger than this may change again without a new time: that of FAT is two seconds."""

Key = tuple[str, str]

_log = logging.getLogger(__name__)


class FileState(NamedTuple):
    """What the system says of a file; nobody can set ``changed_ns`` back."""

    nbytes: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class StoredSource:
    """The files of a series as they were, what else was known of it, and what was stored."""

    files: Mapping[str, FileState]
    premises: str
    has_left_out: bool
    metadata_crc32c: int | None
    chunk_nbytes: int | None


@dataclass(slots=True)
class Sources:
    """What the runs before know of the source, and what this run sees of it."""

    known: dict[Key, StoredSource] = field(default_factory=dict)
    states: dict[str, FileState | None] = field(default_factory=dict)
    seen_ns: int = field(default_factory=time.time_ns)

    @classmethod
    def of(cls, cache: Path) -> Sources:
        """Read the record of a cache; an empty one where it is damaged or not there."""
        try:
            rows = read_sources(cache).iter_rows()
        except FormatError as error:
            _log.warning("%s", error)
            return cls()
        return cls({(study_id, series_id): _stored(*rest) for study_id, series_id, *rest in rows})

    def look_at(self, root: Path, paths: Iterable[str]) -> None:
        """Ask the system for the state of files; an archive's stands for those in it."""
        prefix = f"{root}/"
        for path in paths:
            member = split_member(path)
            if member is None:
                self.states[path] = _look_at_file(prefix + path)
                continue
            if member.archive not in self.states:
                self.states[member.archive] = _look_at_file(prefix + member.archive)
            self.states[path] = self.states[member.archive]

    def identify(self, paths: Iterable[str]) -> tuple[list[Identified], list[str]]:
        """Return the files whose series is known, and those that have to be read for it.

        A study whose UID stands for several is read whole if any of its files is gone or changed.
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
        """Return the files of ``known`` whose study others are read of: take them out, to be read.

        What parts the series that share a UID is the files themselves, all of a study.
        """
        studies = {shared_uid(study_id) for study_id in read}
        again = [item.path for item in known if shared_uid(item.study_id) in studies]
        known[:] = [item for item in known if shared_uid(item.study_id) not in studies]
        return again

    def find_unchanged(self, task: SeriesTask) -> SeriesResult | None:
        """Return the result of a series that is stored, whose files and premises are the same."""
        stored = self.known.get((task.study_id, task.series_id))
        if stored is None or stored.metadata_crc32c is None or stored.premises != premises(task):
            return None
        if stored.has_left_out and not task.knows_left_out:
            return None
        if stored.files != {path: self.states.get(path) for path in task.files}:
            return None
        if (stored.metadata_crc32c, stored.chunk_nbytes) != _look_at_volume(task):
            return None
        nbytes = sum(state.nbytes for state in stored.files.values())
        return SeriesResult(
            task.study_id,
            task.series_id,
            len(task.files),
            nbytes,
            cached=True,
            has_left_out=stored.has_left_out,
            reason=None,
            rejections=(),
        )

    def add(self, task: SeriesTask, result: SeriesResult) -> None:
        """Take down what became of a series, if its files have settled."""
        key = task.study_id, task.series_id
        self.known.pop(key, None)
        states = {path: self.states.get(path) for path in task.files}
        settled = {path: state for path, state in states.items() if self._has_settled(state)}
        if len(settled) < len(states):
            return
        metadata_crc32c, chunk_nbytes = (None, None) if result.reason else _look_at_volume(task)
        self.known[key] = StoredSource(
            {path: state for path, state in settled.items() if state is not None},
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


def _look_at_file(path: str) -> FileState | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # making a Path costs four times the call
    except OSError:
        return None  # who reads the file says what is wrong with it
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def premises(task: SeriesTask) -> str:
    """Return what a volume depends on beside the bytes of its files."""
    beside = f"{task.shares_uid}|{'|'.join(task.companions)}"
    return f"{RULES}|{REVISION}|{task.named}|{task.has_csv}|{beside}|{task.config!r}"


def _stored(
    said: str,
    has_left_out: bool,  # noqa: FBT001  # a column
    metadata_crc32c: int | None,
    chunk_nbytes: int | None,
    paths: Sequence[str],
    *columns: Sequence[int],
) -> StoredSource:
    files = dict(zip(paths, map(FileState._make, zip(*columns, strict=True)), strict=True))
    return StoredSource(files, said, has_left_out, metadata_crc32c, chunk_nbytes)


def _look_at_volume(task: SeriesTask) -> tuple[int | None, int | None]:
    """Return the CRC-32C of a volume's metadata and the size of its chunk, None for no volume."""
    folder = volume_folder(task.cache, task.study_id, task.series_id)
    try:
        return crc32c((folder / METADATA).read_bytes()), (folder / CHUNK).stat().st_size
    except OSError:
        return None, None
