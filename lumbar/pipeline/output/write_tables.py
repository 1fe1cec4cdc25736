"""The end of a run: write the tables and, last of all, the description of the cache."""

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
from lumbar.cache.patients import Groups
from lumbar.cache.tables import read_table, write_cache_file, write_table
from lumbar.cache.volumes import read_attributes
from lumbar.pipeline.geometry.points import PLACED, find_unclear, make_point_table, warn_of_flagged
from lumbar.pipeline.reject import Rejection
from lumbar.pipeline.source.layout import Split
from lumbar.pipeline.source.rsna_csv import CsvTables

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a cache is made from: configuration, split, studies and shard.

    ``patients`` has the studies of each patient who has several, None if that is unknown.
    """

    settings: dict[str, object]
    split: Split | None
    studies: frozenset[str]
    shard: str | None = None
    patients: Groups | None = None


def keep_old(tables: CsvTables, out: Path) -> CsvTables:
    """Fill in labels and points of an earlier run if their CSV files are gone.

    A CSV file that is absent for one run must not empty the cache.
    """
    labels, points = tables.labels, tables.points
    if labels is None:
        labels = _read_kept(out, LABELS_TABLE)
    if points is None:
        kept = _read_kept(out, COORDINATES_TABLE)
        points = None if kept is None else kept.drop(PLACED)
    return replace(tables, labels=labels, points=points)


def stored_tables(labels: pl.DataFrame, coordinates: pl.DataFrame) -> CsvTables:
    """Return the tables from which labels and coordinates of a cache were made."""
    return CsvTables(None, labels, None if coordinates.is_empty() else coordinates.drop(PLACED))


def _read_kept(out: Path, name: str) -> pl.DataFrame | None:
    """Return a table of an earlier run, None if it is empty or absent."""
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
class WrittenTables:
    """The tables that were written, and the number of flagged points by flag."""

    series: pl.DataFrame
    rejected: pl.DataFrame
    n_points: int
    points_by_flag: dict[str, int]


def write_tables(
    out: Path,
    origin: Origin,
    tables: CsvTables,
    rejections: Iterable[Rejection],
    *,
    is_finished: bool = False,
) -> WrittenTables:
    """Write the tables and the description of the stored volumes.

    ``is_finished`` means that the present tables were all written by one finished run.
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
    return WrittenTables(series, rejected, points.height, counts_by_flag)


def _read_old(out: Path, name: str) -> pl.DataFrame | None:
    """Return a table of an earlier run to save work, None if it is damaged or absent."""
    try:
        return read_table(out, name)
    except (MissingError, FormatError):
        return None


def _are_points(placed: pl.DataFrame, points: pl.DataFrame | None) -> bool:
    """Tell whether a table of placed points was made from these points."""
    given = placed.drop(PLACED)
    columns = given.columns
    return points is not None and given.sort(columns).equals(points.select(columns).sort(columns))
