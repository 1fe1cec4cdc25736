"""A cache opened for reading: its tables, and its volumes as memory maps or chosen slices."""

from __future__ import annotations

import errno
import resource
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int

from lumbar.cache.compressed_slices import read_slices
from lumbar.cache.errors import InputError, LumbarError
from lumbar.cache.files.read_ahead import advise, spans_of_slices
from lumbar.cache.format import (
    CACHE_FILE,
    COORDINATES_TABLE,
    LABELS_TABLE,
    REJECTED_TABLE,
    SERIES_TABLE,
    Profile,
    VolumeAttributes,
    check_profile,
)
from lumbar.cache.names import SeriesType
from lumbar.cache.patients import patients_of
from lumbar.cache.tables import read_cache_file, read_table
from lumbar.cache.volumes import Stored, map_volume, read_attributes


@dataclass(frozen=True, slots=True)
class ChunkFile:
    """The file of a volume, and what is needed to read it."""

    path: Path
    dtype: str
    shape: tuple[int, int, int]
    nbytes: int

    @property
    def slice_nbytes(self) -> int:
        """Bytes of a slice before compression."""
        return self.shape[1] * self.shape[2] * np.dtype(self.dtype).itemsize


SPARE_FILES = 1024
"""Descriptors that are not used for memory maps."""

EXHAUSTED = {errno.EMFILE, errno.ENOMEM}
"""Errors of the system for too many descriptors or memory maps."""


class Cache:
    """A finished cache; safe to read from several threads.

    Raises
    ------
    MissingError, InputError, FormatError
        If the folder is absent, is no cache or not a finished one, or is of a format that this
        version does not read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.description: dict[str, Any] = read_cache_file(root)
        if not self.description["counts"]:
            raise InputError(
                what="the cache is not finished",
                where=root,
                got="no counts: its preprocessing was stopped or is still running",
                expected="a cache whose preprocessing came to its end",
                cure="run `lumbar preprocess` again: it goes on where it was stopped",
            )
        # A configuration without a profile means this one.
        self.profile: Profile = check_profile(
            self.description["config"].get("profile", "fast"), where=root / CACHE_FILE
        )
        self._maps: dict[int, Stored] = {}
        self._maps_lock = threading.Lock()
        self._most_maps = 0

    @property
    def source_studies(self) -> list[str]:
        """The studies that the source held, cached or not."""
        return list(self.description["source"].get("studies", ()))

    @property
    def knows_patients(self) -> bool:
        """Whether preprocessing compared the patients of the studies."""
        return "patients" in self.description["source"]

    @cached_property
    def patients(self) -> dict[str, str]:
        """For every study whose patient has several: the first study of that patient.

        Any other study counts as a patient of its own.
        """
        return patients_of(self.description["source"].get("patients", ()))

    @property
    def is_empty_shard(self) -> bool:
        """Whether this is a shard that got none of the source's studies and files."""
        is_shard = "shard" in self.description["source"]
        return is_shard and not self.source_studies and self.rejected.is_empty()

    @property
    def voxel_config(self) -> dict[str, Any]:
        """The part of the configuration that changes voxels: all but the profile."""
        return {k: v for k, v in self.description["config"].items() if k != "profile"}

    @cached_property
    def series(self) -> pl.DataFrame:
        """One row per cached series, ordered by study and series."""
        return read_table(self.root, SERIES_TABLE)

    @cached_property
    def labels(self) -> pl.DataFrame:
        """One row per study: 75 one-hot columns and 25 known columns."""
        return read_table(self.root, LABELS_TABLE)

    @cached_property
    def coordinates(self) -> pl.DataFrame:
        """One row per annotated point."""
        return read_table(self.root, COORDINATES_TABLE)

    @cached_property
    def rejected(self) -> pl.DataFrame:
        """One row per rejected file or series."""
        return read_table(self.root, REJECTED_TABLE)

    def rows_of(self, series_type: SeriesType) -> list[int]:
        """Return the row numbers in `series` of one type; raise `InputError` if there is none."""
        rows = self.series["series_type"].eq(str(series_type)).arg_true().to_list()
        if not rows:
            counts = dict(self.series["series_type"].value_counts(sort=True).iter_rows())
            raise InputError(
                what=f"the cache holds no series of type {series_type}",
                where=self.root,
                got=counts or "no series at all",
                cure="choose a type that is there or preprocess those series",
            )
        return rows

    def find_series(self, name: str) -> int:
        """Return the row of a series by ``STUDY/SERIES`` or by its series id, if that is unique."""
        study_id, _, series_id = name.rpartition("/")
        found = self.series["series_id"].eq(series_id)
        if study_id:
            found &= self.series["study_id"].eq(study_id)
        rows = found.arg_true().to_list()
        if len(rows) != 1:
            raise InputError(
                what="no such series" if not rows else "series of several studies",
                where=self.root,
                got=name,
                expected="STUDY/SERIES of a cached series",
                cure=f"{SERIES_TABLE} in the cache lists them" + self._for_example(),
            )
        return int(rows[0])

    def _for_example(self) -> str:
        named = self.series.select("study_id", "series_id").head(1).rows()
        return "".join(f"; the first is {study_id}/{series_id}" for study_id, series_id in named)

    def volume(self, row: int) -> Stored:
        """Return a series as ``(d, h, w)``: a read-only memory map, opened once, or decompressed.

        Raises
        ------
        FormatError
            If its file is missing, of another size or, where it is compressed, damaged.
        """
        file = self._files[row]
        if self.profile == "archive":
            return self.slices(row, range(file.shape[0]))
        mapped = self._maps.get(row)
        if mapped is None:
            mapped = self._map(file)
            self._keep(row, mapped)
        return mapped

    def _map(self, file: ChunkFile) -> Stored:
        """Map a file; where the process has no descriptor or map left, close all others first.

        Other caches and libraries of this process use descriptors too, so the limit is not known.
        """
        try:
            return map_volume(file.path, dtype=file.dtype, shape=file.shape)
        except OSError as error:
            if error.errno not in EXHAUSTED or not self._maps:
                raise
        with self._maps_lock:
            self._most_maps = max(len(self._maps) // 2, 1)
            self._maps.clear()
        return map_volume(file.path, dtype=file.dtype, shape=file.shape)

    def _keep(self, row: int, mapped: Stored) -> None:
        """Keep a map open; at the limit of the system, drop the oldest.

        A map in use stays open until the last array of it is gone.
        """
        with self._maps_lock:
            if not self._most_maps:
                self._most_maps = allow_open_files(len(self._files))
            while len(self._maps) >= self._most_maps:
                del self._maps[next(iter(self._maps))]
            self._maps[row] = mapped

    def slices(self, row: int, slices: Int[np.ndarray, " n"] | Iterable[int]) -> Stored:
        """Return chosen slices of a series as a new array ``(n, h, w)``; below zero gives zeros.

        Releases the GIL while it copies or decompresses.

        Raises
        ------
        FormatError
            As `volume`, but only the chosen slices are checked.
        InputError
            If the series has no such slice.
        """
        file = self._files[row]
        wanted = [int(d) for d in slices]
        depth, height, width = file.shape
        if wanted and max(wanted) >= depth:
            raise InputError(
                what="a series has no such slice",
                where=file.path,
                got=max(wanted),
                expected=f"at most {depth - 1}, or below zero for an empty one",
            )
        if self.profile == "archive":
            return read_slices(
                file.path, dtype=file.dtype, shape=file.shape, nbytes=file.nbytes, slices=wanted
            )
        volume_dhw = self.volume(row)
        picked_dhw = np.zeros((len(wanted), height, width), volume_dhw.dtype)
        for place, d in enumerate(wanted):
            if d >= 0:
                picked_dhw[place] = volume_dhw[d]
        return picked_dhw

    def read_ahead(self, row: int, slices: Int[np.ndarray, " n"] | Iterable[int]) -> None:
        """Let the system read some slices of a series into memory soon; returns at once.

        A compressed volume is read whole.
        """
        file = self._files[row]
        if self.profile == "archive":
            advise(file.path, [(0, file.nbytes)])
        else:
            advise(file.path, spans_of_slices([int(d) for d in slices], file.slice_nbytes))

    @cached_property
    def _files(self) -> list[ChunkFile]:
        """The file of each row, kept because reading the table costs more than reading slices."""
        columns = ("path", "dtype", "depth", "height", "width", "nbytes")
        return [
            ChunkFile(self.root / path, dtype, (depth, height, width), nbytes)
            for path, dtype, depth, height, width, nbytes in self.series.select(columns).rows()
        ]

    def scale_and_offset(self, row: int) -> tuple[float, float]:
        """Return a series' scale and offset: normalised = stored * scale + offset."""
        return self._scales[row]

    @cached_property
    def _scales(self) -> list[tuple[float, float]]:
        return self.series.select("scale", "offset").rows()

    def attributes(self, row: int) -> VolumeAttributes:
        """Return the attributes of a row's volume."""
        entry = self.series.row(row, named=True)
        attributes = read_attributes(self.root, entry["study_id"], entry["series_id"])
        if attributes is None:
            raise InputError(
                what="the index names a volume that is gone",
                where=f"{entry['study_id']}/{entry['series_id']}",
                cure="run `lumbar verify`, then `lumbar preprocess` again",
            )
        return attributes


def allow_open_files(maps: int) -> int:
    """Raise the soft limit of open files, since every memory map holds a descriptor.

    Returns how many maps may be open: at most ``maps``, and `SPARE_FILES` fewer than the limit, or
    a quarter of a limit that is too low for that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = maps + SPARE_FILES
    if soft == resource.RLIM_INFINITY:
        return max(maps, 1)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    else:
        allowed = soft
    return max(min(maps, max(allowed - SPARE_FILES, allowed // 4)), 1)


def empty_cache(cache: Cache) -> LumbarError:
    """Return the error for a cache without series, which no command can use."""
    counts = cache.rejected["reason"].value_counts()
    counts = counts.sort("count", "reason", descending=[True, False])
    named = ", ".join(f"{count:,} {name}" for name, count in counts.head(4).iter_rows())
    return LumbarError(
        what="the cache holds no series",
        where=cache.root,
        got=f"rejected files and series: {named or 'none'}",
        expected="one series or more",
        cure="`lumbar preprocess` on a source with images says what to do about each reason",
    )
