"""A table of all series, cached or left out, and filters on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.labels import UNKNOWN, severities_of
from lumbar.cache.names import CONDITIONS, LEVELS, SEVERITIES, SHOWN_CONDITIONS, SeriesType
from lumbar.cache.store import Cache

KEY = ["study_id", "series_id"]
LISTS = ("flags", "reasons", "details", "severities")
COLUMNS = (
    *(*KEY, "series_type", *LISTS),
    *("depth", "height", "width", "spacing_d_mm", "spacing_h_mm", "spacing_w_mm", "n_stacks"),
    *("window_low", "window_high", "mean", "std", "n_files", "manufacturer", "transfer_syntax"),
    "path",
)
SEPARATOR = ";"
"""Between the items of a list in a CSV file."""

MOST_DETAILS = 3
"""Rejected files per series that are listed with their detail."""

ExportFormat = Literal["csv", "parquet", "json"]


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter: a series needs one of the values of every field that has any."""

    types: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether the filter has any value."""
        return any((self.types, self.flags, self.reasons, self.severities, self.studies))


def all_series(cache: Cache) -> pl.DataFrame:
    """Return one row per series, cached or left out, ordered by study and series.

    ``reasons`` are those of its rejected files and of the series itself, ``details`` the first few
    with path and detail. A series that is not cached has no type and no geometry. ``severities``
    are the distinct ones of its study, for the conditions that its type shows.

    Raises
    ------
    MissingError, FormatError
        If a table is absent or damaged.
    """
    details = pl.format("{}: {} {}", "reason", "path", "detail").head(MOST_DETAILS)
    left_out = cache.rejected.group_by(KEY, maintain_order=True).agg(
        pl.col("reason").unique(maintain_order=True).alias("reasons"), details.alias("details")
    )
    joined = cache.series.join(left_out, on=KEY, how="full", coalesce=True).sort(KEY)
    empty = pl.lit([], dtype=pl.List(pl.String))
    table = joined.with_columns(pl.col("flags", "reasons", "details").fill_null(empty))
    return table.with_columns(_severities(table, cache.labels)).select(COLUMNS)


def select(table: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Return the rows of `all_series` that pass a filter.

    Raises
    ------
    InputError
        If no series has a value of the filter.
    """
    everything = table
    for names, column, what in (
        (selection.types, "series_type", "type"),
        (selection.studies, "study_id", "study"),
        (selection.flags, "flags", "flag"),
        (selection.reasons, "reasons", "reason"),
        (selection.severities, "severities", "severity"),
    ):
        is_list = column in LISTS
        values = everything[column].explode() if is_list else everything[column]
        _check_known(names, values.drop_nulls(), what)
        if names:
            found = pl.col(column)
            table = table.filter(
                found.list.set_intersection(list(names)).list.len() > 0
                if is_list
                else found.is_in(names)
            )
    return table


def rejected_of(cache: Cache, selection: Selection) -> pl.DataFrame:
    """Return the rows of ``rejected.parquet`` with the filter's reasons and studies."""
    table = cache.rejected.filter(pl.col("reason").is_in(selection.reasons))
    return table.filter(pl.col("study_id").is_in(selection.studies)) if selection.studies else table


def export(table: pl.DataFrame, out: Path, form: ExportFormat) -> None:
    """Write rows of `all_series` to a file; CSV joins lists by semicolons."""
    buffer = BytesIO()
    if form == "csv":
        table.with_columns(pl.col(LISTS).list.join(SEPARATOR)).write_csv(buffer)
    elif form == "parquet":
        table.write_parquet(buffer)
    else:
        table.write_json(buffer)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, buffer.getvalue())


def _severities(table: pl.DataFrame, labels: pl.DataFrame) -> pl.Series:
    """Return the distinct severities of each series' study, the worst last."""
    by_study = dict(zip(labels["study_id"], severities_of(labels), strict=True))
    found: list[list[str]] = []
    for study_id, kind in table.select("study_id", "series_type").rows():
        cells = by_study.get(study_id)
        shown = SHOWN_CONDITIONS.get(SeriesType(kind)) if kind else None
        if cells is None:
            found.append([])
            continue
        graded = cells.reshape(len(CONDITIONS), len(LEVELS))[list(shown or range(len(CONDITIONS)))]
        found.append([SEVERITIES[code] for code in sorted(set(graded.ravel()) - {UNKNOWN})])
    return pl.Series("severities", found, pl.List(pl.String))


def _check_known(names: Iterable[str], values: pl.Series, what: str) -> None:
    known = values.unique().sort().to_list()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            what=f"no series has this {what}",
            got=", ".join(unknown),
            expected="one of " + ", ".join(known[:12]) if known else f"no {what}: none has any",
            cure="`lumbar inspect` lists the values that exist",
        )
