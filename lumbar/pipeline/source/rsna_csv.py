"""The data set's CSV files: series descriptions, labels and points, checked cell by cell.

Ids stay strings. `lumbar.cache.label_csv` reads ``train.csv``, also for scoring a submission.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.label_csv import read_label_csv, read_text_csv, to_known
from lumbar.cache.names import CONDITIONS, LEVELS, SERIES_DESCRIPTIONS, SeriesType
from lumbar.cache.spelling import letters_of, plain_id
from lumbar.pipeline.source.layout import Layout
from lumbar.pipeline.source.shard import Shard

SERIES_COLUMNS = ("study_id", "series_id", "series_description")
POINT_COLUMNS = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")

CONDITION_TEXTS = {name.replace("_", " ").title(): name for name in CONDITIONS}
"""How the coordinates CSV writes the conditions: ``Left Subarticular Stenosis``."""

LEVEL_TEXTS = {name.replace("_", "/").upper(): name for name in LEVELS}
"""How the coordinates CSV writes the levels: ``L1/L2``."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CsvTables:
    """The tables of a source, None for a CSV file that is absent; ``labels`` is a labels table."""

    types: dict[tuple[str, str], SeriesType] | None = None
    labels: pl.DataFrame | None = None
    points: pl.DataFrame | None = None

    def part(self, shard: Shard) -> CsvTables:
        """Return the rows of a shard's studies."""
        types = self.types
        if types is not None:
            types = {key: type_ for key, type_ in types.items() if shard.holds(key[0])}
        return CsvTables(types, _rows_of(self.labels, shard), _rows_of(self.points, shard))


def _rows_of(table: pl.DataFrame | None, shard: Shard) -> pl.DataFrame | None:
    if table is None:
        return None
    return table.filter([shard.holds(study_id) for study_id in table["study_id"]])


def read_tables(layout: Layout) -> CsvTables:
    """Read and check the CSV files that exist; raise `InputError` for the first wrong one."""
    if layout.split is not None and layout.series_csv is None:
        _log.warning("no series descriptions CSV in %s: types come from the headers", layout.tables)
    if layout.split == "train" and layout.labels_csv is None:
        _log.warning("no labels CSV in %s: no study gets labels from it", layout.tables)
    return CsvTables(
        read_series_descriptions(layout.series_csv) if layout.series_csv else None,
        read_label_csv(layout.labels_csv) if layout.labels_csv else None,
        read_points(layout.coordinates_csv) if layout.coordinates_csv else None,
    )


def read_series_descriptions(path: Path) -> dict[tuple[str, str], SeriesType]:
    """Return ``(study_id, series_id) -> type``.

    Raises
    ------
    InputError
        If a column is missing, a cell is empty, a description is unknown or a series comes twice.
    """
    table = read_text_csv(path, columns=SERIES_COLUMNS)
    _check_ids(table, path)
    table = _to_known(table, "series_description", SERIES_DESCRIPTIONS, path)
    repeated = table.filter(pl.struct("study_id", "series_id").is_duplicated())
    if repeated.height:
        line, study_id, series_id = repeated.select("line", "study_id", "series_id").row(1)
        raise InputError(
            what="a series comes twice",
            where=f"{path} line {line}",
            got=f"study {study_id}, series {series_id}",
            expected="one row per series",
            cure="remove one of the rows",
        )
    return {
        (study_id, series_id): SERIES_DESCRIPTIONS[description]
        for study_id, series_id, description in table.select(SERIES_COLUMNS).iter_rows()
    }


def read_points(path: Path) -> pl.DataFrame:
    """Return the annotated points, with lumbar's names of condition and level.

    Raises
    ------
    InputError
        If a column is missing, a cell is empty, a condition or level is unknown, or a cell holds
        no number where one is expected.
    """
    table = read_text_csv(path, columns=POINT_COLUMNS)
    _check_ids(table, path)
    table = _to_known(table, "condition", CONDITION_TEXTS, path)
    table = _to_known(table, "level", LEVEL_TEXTS, path)
    return table.select(
        "study_id",
        "series_id",
        pl.col("condition").replace_strict(CONDITION_TEXTS),
        pl.col("level").replace_strict(LEVEL_TEXTS),
        _to_numbers(table, "instance_number", path, whole=True),
        _to_numbers(table, "x", path, whole=False),
        _to_numbers(table, "y", path, whole=False),
    )


def _check_ids(table: pl.DataFrame, path: Path) -> None:
    """Refuse a row without a study id or series id."""
    for column in ("study_id", "series_id"):
        empty = table.filter(pl.col(column).is_null())
        if empty.height:
            raise InputError(
                what=column,
                where=f"{path} line {empty['line'][0]}",
                got="nothing",
                expected="an id",
                cure="fill it in or remove the row",
            )


def _to_known(table: pl.DataFrame, column: str, known: Iterable[str], path: Path) -> pl.DataFrame:
    """Return the table with one column in the data set's spelling; refuse unknown texts."""
    known = list(known)
    table = table.with_columns(to_known(table, column, {letters_of(t): t for t in known}, path))
    unknown = table.filter(pl.col(column).is_in(known).fill_null(value=False).not_())
    if unknown.height:
        raise InputError(
            what=f"unknown {column}",
            where=f"{path} line {unknown['line'][0]}",
            got=repr((unknown[column][0] or "")[:80]),
            expected="one of " + ", ".join(known),
            cure="correct the cell",
        )
    return table


def _to_numbers(table: pl.DataFrame, column: str, path: Path, *, whole: bool) -> pl.Series:
    """Return a column as numbers; a whole one may be written as ``6.0``."""
    texts = table[column]
    if whole:
        spelt = {text: plain_id(text) for text in texts.drop_nulls().unique(maintain_order=True)}
        changed = {text: number for text, number in spelt.items() if number not in {None, text}}
        if changed:
            text, number = next(iter(changed.items()))
            _log.warning("%s: %s: %r is taken as %s", path, column, text, number)
        texts = texts.replace(changed) if changed else texts
    numbers = texts.cast(pl.Int32 if whole else pl.Float64, strict=False)
    valid = numbers.is_not_null() if whole else numbers.is_finite()
    wrong = table.filter(~valid.fill_null(value=False))
    if wrong.height:
        kind = "a whole number" if whole else "a number"
        raise InputError(
            what=f"{column} is not {kind}",
            where=f"{path} line {wrong['line'][0]}",
            got=repr((wrong[column][0] or "")[:80]),
            expected=kind,
            cure="correct the cell or remove the row",
        )
    return numbers
