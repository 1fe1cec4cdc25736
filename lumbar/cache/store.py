"""A cache opened for reading: its tables, and its volumes as memory maps."""

from __future__ import annotations

import resource
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.format import (
    COORDINATES_TABLE,
    LABELS_TABLE,
    REJECTED_TABLE,
    SERIES_TABLE,
    VolumeAttributes,
)
from lumbar.cache.names import SeriesType
from lumbar.cache.tables import read_cache_file, read_table
from lumbar.cache.volumes import Stored, map_volume, read_attributes


class Cache:
    """A finished cache.

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
        self._maps: dict[int, Stored] = {}

    @property
    def source_studies(self) -> list[str]:
        """The studies that the source held, cached or not."""
        # Caches of the first development versions say nothing of their source.
        return list(self.description.get("source", {}).get("studies", ()))

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
        """Return a series as a read-only ``(d, h, w)`` memory map, opened once."""
        if row not in self._maps:
            if not self._maps:
                allow_open_files(self.series.height)
            entry = self.series.row(row, named=True)
            self._maps[row] = map_volume(
                self.root / entry["path"],
                dtype=entry["dtype"],
                shape=(entry["depth"], entry["height"], entry["width"]),
            )
        return self._maps[row]

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


def allow_open_files(maps: int) -> None:
    """Raise the soft limit of open files, since every memory map holds a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(maps + 1024, hard) if hard != resource.RLIM_INFINITY else maps + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
