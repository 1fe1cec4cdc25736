"""The data set's CSV files, read as text and checked cell by cell: ids stay strings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.names import (
    CELLS,
    CONDITIONS,
    LEVELS,
    SERIES_DESCRIPTIONS,
    SEVERITY_TEXTS,
    SeriesType,
)

SERIES_COLUMNS = ("study_id", "series_id", "series_description")
POINT_COLUMNS = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")
LABEL_COLUMNS = ("study_id", *CELLS)

_FIRST_ROW = 2
"""Line of the first row: line 1 is the header."""


def read_series_descriptions(path: Path) -> dict[tuple[str, str], SeriesType]:
    """Return ``(study_id, series_id) -> type``; raise `InputError` for what is not a type."""
    table = _read(path, SERIES_COLUMNS)
    _check_known(table, "series_description", SERIES_DESCRIPTIONS, path)
    _check_unique(table, ("study_id", "series_id"), path)
    return {
        (study_id, series_id): SERIES_DESCRIPTIONS[description]
        for study_id, series_id, description in table.iter_rows()
    }


def read_labels(path: Path) -> pl.DataFrame:
    """Return ``study_id`` and the 25 cells as text, null where empty, ordered by study.

    Raises
    ------
    InputError
        If a column is missing or unknown, a severity is none, or a study stands twice.
    """
    table = _read(path, LABEL_COLUMNS)
    for cell in CELLS:
        _check_known(table, cell, SEVERITY_TEXTS, path, may_be_empty=True)
    _check_unique(table, ("study_id",), path)
    return table.sort("study_id")


def read_points(path: Path) -> pl.DataFrame:
    """Return the annotated points as given: ids and names text, numbers as numbers.

    Raises
    ------
    InputError
        If a column is missing or unknown, a number is none, or a condition or level is unknown.
    """
    table = _read(path, POINT_COLUMNS)
    _check_known(table, "condition", _title_cased(CONDITIONS), path)
    _check_known(table, "level", [level.upper().replace("_", "/") for level in LEVELS], path)
    return table.with_columns(
        _numbers(table, "instance_number", pl.Int32(), path),
        _numbers(table, "x", pl.Float64(), path),
        _numbers(table, "y", pl.Float64(), path),
    )


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        table = pl.read_csv(path, infer_schema=False)
    except FileNotFoundError as error:
        raise MissingError(what="no such CSV file", where=path) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            what="CSV file",
            where=path,
            got=error,
            expected=f"columns {', '.join(columns[:7])}",
            cure="restore the file from the data set",
        ) from error
    missing = [column for column in columns if column not in table.columns]
    unknown = [column for column in table.columns if column not in columns]
    if missing:
        raise InputError(
            what=f"a CSV file lacks the column {missing[0]}",
            where=path,
            got=", ".join(unknown[:5]) if unknown else f"{table.width} other columns",
            expected=", ".join(missing[:5]),
            cure="restore the file's header from the data set",
        )
    table = table.select(columns)
    for column in columns:
        if column.endswith("_id"):
            _check_filled(table, column, path)
    return table


def _check_filled(table: pl.DataFrame, column: str, path: Path) -> None:
    empty = table[column].is_null().arg_true()
    if len(empty):
        raise InputError(
            what=f"empty {column} in a CSV file",
            where=f"{path}, line {empty[0] + _FIRST_ROW}",
            expected="an id in every row",
            cure="fill it in or remove the row",
        )


def _check_known(
    table: pl.DataFrame,
    column: str,
    known: Iterable[str],
    path: Path,
    *,
    may_be_empty: bool = False,
) -> None:
    known = list(known)
    unknown = ~table[column].is_in(known)
    rows = (unknown.fill_null(not may_be_empty)).arg_true()
    if len(rows):
        raise InputError(
            what=f"unknown {column} in a CSV file",
            where=f"{path}, line {rows[0] + _FIRST_ROW}",
            got=repr(table[column][rows[0]]),
            expected="one of " + ", ".join(known) + (" or nothing" if may_be_empty else ""),
            cure="correct the cell",
        )


def _check_unique(table: pl.DataFrame, keys: tuple[str, ...], path: Path) -> None:
    repeated = table.select(keys).is_duplicated().arg_true()
    if len(repeated):
        key = table.select(keys).row(repeated[1])
        raise InputError(
            what="a row stands twice in a CSV file",
            where=f"{path}, line {repeated[1] + _FIRST_ROW}",
            got=" ".join(key),
            expected=f"each {' and '.join(keys)} once",
            cure="remove one of the rows",
        )


def _numbers(table: pl.DataFrame, column: str, dtype: pl.DataType, path: Path) -> pl.Series:
    numbers = table[column].str.strip_chars().cast(dtype, strict=False)
    valid = numbers.is_not_null()
    if dtype.is_float():
        valid &= numbers.is_finite().fill_null(value=False)
    wrong = (~valid).arg_true()
    if len(wrong):
        raise InputError(
            what=f"{column} in a CSV file is not a number",
            where=f"{path}, line {wrong[0] + _FIRST_ROW}",
            got=repr(table[column][wrong[0]]),
            expected="a number" if dtype.is_float() else "a whole number",
            cure="correct the cell or remove the row",
        )
    return numbers


def _title_cased(slugs: Iterable[str]) -> list[str]:
    """Return names as the coordinates CSV writes them, ``Left Subarticular Stenosis``."""
    return [slug.replace("_", " ").title() for slug in slugs]
