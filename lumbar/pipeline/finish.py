"""The end of a run: the tables of what is stored, and last of all the description of the cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import polars as pl

from lumbar.cache.errors import FormatError, MissingError
from lumbar.cache.format import (
    COORDINATES_TABLE,
    LABELS_SCHEMA,
    LABELS_TABLE,
    REJECTED_SCHEMA,
    REJECTED_TABLE,
    SERIES_TABLE,
    VolumeAttributes,
)
from lumbar.cache.index import build_index
from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.names import SeriesType
from lumbar.cache.patients import Groups
from lumbar.cache.tables import read_table, write_cache_file, write_table
from lumbar.cache.volumes import read_attributes
from lumbar.pipeline.layout import Layout, Split
from lumbar.pipeline.points import PLACED, find_unclear, make_point_table, warn_of_flagged
from lumbar.pipeline.reject import Rejection
from lumbar.pipeline.rsna import read_points, read_series_descriptions
from lumbar.pipeline.shard import Shard

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tables:
    """The source's CSV files, each None where there is none; labels are a finished table."""

    types: dict[tuple[str, str], SeriesType] | None
    labels: pl.DataFrame | None
    points: pl.DataFrame | None

    def part(self, shard: Shard) -> Tables:
        """Return the rows of a shard's studies."""
        types = self.types
        if types is not None:
            types = {key: type_ for key, type_ in types.items() if shard.holds(key[0])}
        return Tables(types, _rows_of(self.labels, shard), _rows_of(self.points, shard))


def _rows_of(table: pl.DataFrame | None, shard: Shard) -> pl.DataFrame | None:
    if table is None:
        return None
    return table.filter([shard.holds(study_id) for study_id in table["study_id"]])


@dataclass(frozen=True, slots=True)
class Origin:
    """What a cache was made from: configuration, split, studies, and which part of them.

    ``patients`` are the studies of each patient who has several, None where nobody looked.
    """

    settings: dict[str, object]
    split: Split | None
    studies: frozenset[str]
    shard: str | None = None
    patients: Groups | None = None


def read_tables(layout: Layout) -> Tables:
    """Read and check the CSV files that exist; raise `InputError` for the first that is wrong."""
    if layout.split is not None and layout.series_csv is None:
        _log.warning("no series descriptions CSV in %s: types come from the headers", layout.tables)
    if layout.split == "train" and layout.labels_csv is None:
        _log.warning("no labels CSV in %s: no study gets labels from it", layout.tables)
    return Tables(
        read_series_descriptions(layout.series_csv) if layout.series_csv else None,
        read_label_csv(layout.labels_csv) if layout.labels_csv else None,
        read_points(layout.coordinates_csv) if layout.coordinates_csv else None,
    )


def keep_old(tables: Tables, out: Path) -> Tables:
    """Fill in labels and points of an earlier run where their CSV files are gone."""
    labels, points = tables.labels, tables.points
    if labels is None:
        labels = _read_kept(out, LABELS_TABLE)
    if points is None:
        kept = _read_kept(out, COORDINATES_TABLE)
        points = None if kept is None else kept.drop(PLACED)
    return replace(tables, labels=labels, points=points)


def _read_kept(out: Path, name: str) -> pl.DataFrame | None:
    """Return a table of an earlier run where its CSV file is gone; None if it holds nothing.

    A CSV file that is not there for one run must not empty the cache.
    """
    try:
        table = read_table(out, name)
    except MissingError:
        return None
    except FormatError as error:
        _log.warning("%s: its rows are lost", error)
        return None
    if table.is_empty():
        return None
    _log.warning("no CSV file for %s: its %d rows of an earlier run stay", name, table.height)
    return table


@dataclass(frozen=True, slots=True)
class Written:
    """The tables that were written, and how many points have no place, by flag."""

    series: pl.DataFrame
    rejected: pl.DataFrame
    n_points: int
    points_by_flag: dict[str, int]


def write_tables(
    out: Path,
    origin: Origin,
    tables: Tables,
    rejections: Iterable[Rejection],
    *,
    is_finished: bool = False,
) -> Written:
    """Write everything that describes the stored volumes; return what a person is told of it.

    ``is_finished`` says that the tables that are there were written by one run to its end.
    """
    old_series = _read_old(out, SERIES_TABLE)
    series = build_index(out, known=old_series)
    shapes = {
        (row["study_id"], row["series_id"]): (row["height"], row["width"])
        for row in series.select("study_id", "series_id", "height", "width").iter_rows(named=True)
    }

    def find(*key: str) -> VolumeAttributes | None:
        return read_attributes(out, *key) if key in shapes else None

    labels = pl.DataFrame(schema=LABELS_SCHEMA) if tables.labels is None else tables.labels
    same = is_finished and old_series is not None and series.equals(old_series)
    points = _read_old(out, COORDINATES_TABLE) if same else None
    if points is None or not _are_points(points, tables.points):
        points = make_point_table(tables.points, shapes, find)
    rejected = pl.DataFrame(
        [astuple(rejection) for rejection in sorted(set(rejections))],
        schema=REJECTED_SCHEMA,
        orient="row",
    )
    for name, table in (
        (SERIES_TABLE, series),
        (LABELS_TABLE, labels),
        (COORDINATES_TABLE, points),
        (REJECTED_TABLE, rejected),
    ):
        write_table(out, name, table)
    counts = {
        "series": series.height,
        "studies": series["study_id"].n_unique(),
        "labels": labels.height,
        "coordinates": points.height,
        "rejected": rejected.height,
    }
    write_cache_file(
        out,
        config=origin.settings,
        counts=counts,
        split=origin.split,
        studies=sorted(origin.studies),
        shard=origin.shard,
        patients=origin.patients,
    )
    counts_by_flag = warn_of_flagged(points, find_unclear(points, find))
    return Written(series, rejected, points.height, counts_by_flag)


def _read_old(out: Path, name: str) -> pl.DataFrame | None:
    """Return a table of an earlier run, to save work: None where it is damaged or not there."""
    try:
        return read_table(out, name)
    except (MissingError, FormatError):
        return None


def _are_points(placed: pl.DataFrame, points: pl.DataFrame | None) -> bool:
    """Tell whether a table of placed points is that of the points as given."""
    given = placed.drop(PLACED)
    columns = given.columns
    return points is not None and given.sort(columns).equals(points.select(columns).sort(columns))
