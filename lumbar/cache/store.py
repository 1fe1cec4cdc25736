"""A cache opened for reading: its tables, and its volumes as memory maps or picked slices."""

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
"""What the system says of a descriptor, or of a map, too many."""


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
                got="no counts: its preprocessing was stopped or is still at work",
                expected="a cache whose preprocessing came to its end",
                cure="run `lumbar preprocess` again: it goes on where it was stopped",
            )
        # Caches of the first versions name no profile: they are all of this one.
        self.profile: Profile = check_profile(
            self.description["config"].get("profile", "fast"), where=root / CACHE_FILE
        )
        self._maps: dict[int, Stored] = {}
        self._maps_lock = threading.Lock()
        self._most_maps = 0

    @property
    def source_studies(self) -> list[str]:
        """The studies that the source held, cached or not."""
        # Caches of the first development versions say nothing of their source.
        return list(self.description.get("source", {}).get("studies", ()))

    @property
    def knows_patients(self) -> bool:
        """Whether it was looked at which studies are of one patient: not in the first caches."""
        return "patients" in self.description.get("source", {})

    @cached_property
    def patients(self) -> dict[str, str]:
        """The patient of every study that shares its own with others, called by the first of them.

        Any other study is a patient of its own, as far as anybody knows.
        """
        return patients_of(self.description.get("source", {}).get("patients", ()))

    @property
    def is_empty_shard(self) -> bool:
        """Whether this is a shard to which none of the source's studies and files belong."""
        is_shard = "shard" in self.description.get("source", {})
        return is_shard and not self.source_studies and self.rejected.is_empty()

    @property
    def voxel_config(self) -> dict[str, Any]:
        """The part of the configuration that shapes voxels; caches of both profiles agree in it."""
        return {k: v for k, v in self.description["config"].items() if k != "profile"}

    @cached_property
    def series(self) -> pl.DataFrame:
        """One row a cached series, ordered by study and series."""
        return read_table(self.root, SERIES_TABLE)

    @cached_property
    def labels(self) -> pl.DataFrame:
        """One row a study: 75 one-hot columns and 25 known columns."""
        return read_table(self.root, LABELS_TABLE)

    @cached_property
    def coordinates(self) -> pl.DataFrame:
        """One row an annotated point."""
        return read_table(self.root, COORDINATES_TABLE)

    @cached_property
    def rejected(self) -> pl.DataFrame:
        """One row a rejected file or series."""
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
        """Map a file; where the process has no descriptor or map left, let all others go first.

        Other caches and libraries of this process take descriptors too, which nobody can count.
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
        """Keep a map open; where the system allows fewer than there are, let the oldest go.

        A map that is in use stays open until the last array of it is gone.
        """
        with self._maps_lock:
            if not self._most_maps:
                self._most_maps = allow_open_files(len(self._files))
            while len(self._maps) >= self._most_maps:
                del self._maps[next(iter(self._maps))]
            self._maps[row] = mapped

    def slices(self, row: int, slices: Int[np.ndarray, " n"] | Iterable[int]) -> Stored:
        """Return picked slices of a series as a new array ``(n, h, w)``; below zero gives zeros.

        Lets go of the GIL where it copies or decompresses.

        Raises
        ------
        FormatError
            As `volume`, but only the wanted slices are looked at.
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
        """Ask the system to have some slices of a series in memory soon; returns at once.

        A compressed volume is asked for whole.
        """
        file = self._files[row]
        if self.profile == "archive":
            advise(file.path, [(0, file.nbytes)])
        else:
            advise(file.path, spans_of_slices([int(d) for d in slices], file.slice_nbytes))

    @cached_property
    def _files(self) -> list[ChunkFile]:
        """The file of each row; a look into the table for every read would cost more than it."""
        columns = ("path", "dtype", "depth", "height", "width", "nbytes")
        return [
            ChunkFile(self.root / path, dtype, (depth, height, width), nbytes)
            for path, dtype, depth, height, width, nbytes in self.series.select(columns).rows()
        ]

    def scale_and_offset(self, row: int) -> tuple[float, float]:
        """Return what makes normalised values of a series' voxels: stored * scale + offset."""
        return self._scales[row]

    @cached_property
    def _scales(self) -> list[tuple[float, float]]:
        return self.series.select("scale", "offset").rows()

    def attributes(self, row: int) -> VolumeAttributes:
        """Return what the volume of a row says of itself."""
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

    Returns how many maps may be open, at most ``maps``, with descriptors to spare for everything
    else; of a limit that is too low for that, a quarter.
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
    """Return what to say of a cache that holds no series: whatever it is used for, it fails."""
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
