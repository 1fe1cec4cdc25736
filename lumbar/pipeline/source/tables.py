"""The CSV files of a source: series descriptions, labels and points."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import polars as pl

from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.names import SeriesType
from lumbar.pipeline.source.layout import Layout
from lumbar.pipeline.source.rsna_csv import read_points, read_series_descriptions
from lumbar.pipeline.source.shard import Shard

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
