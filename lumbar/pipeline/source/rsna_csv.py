"""The data set's CSV files of series and points, checked cell by cell: ids stay strings.

``train.csv`` is read by `lumbar.cache.label_csv`, for a submission is scored against it as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.label_csv import read_text_csv, to_known
from lumbar.cache.names import CONDITIONS, LEVELS, SERIES_DESCRIPTIONS, SeriesType
from lumbar.cache.spelling import letters_of, plain_id

SERIES_COLUMNS = ("study_id", "series_id", "series_description")
POINT_COLUMNS = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")

CONDITION_TEXTS = {name.replace("_", " ").title(): name for name in CONDITIONS}
"""How the coordinates CSV writes the conditions: ``Left Subarticular Stenosis``."""

LEVEL_TEXTS = {name.replace("_", "/").upper(): name for name in LEVELS}
"""How the coordinates CSV writes the levels: ``L1/L2``."""

_log = logging.getLogger(__name__)


def read_series_descriptions(path: Path) -> dict[tuple[str, str], SeriesType]:
    """Return ``(study_id, series_id) -> type``.

    Raises
    ------
    InputError
        If a column is missing, a cell is empty, a description is unknown or a series comes twice.
    """
    table = read_text_csv(path, columns=SERIES_COLUMNS)
    _check_filled(table, ("study_id", "series_id"), path)
    table = table.with_columns(_named(table, "series_description", SERIES_DESCRIPTIONS, path))
    _check_known(table, "series_description", SERIES_DESCRIPTIONS, path)
    repeated = table.filter(pl.struct("study_id", "series_id").is_duplicated())
    if repeated.height:
        line, study_id, series_id = repeated.select("line", "study_id", "series_id").row(1)
        raise InputError(
            what="a series comes twice",
            where=f"{path} line {line}",
            got=f"study {study_id}, series {series_id}",
            expected="one row a series",
            cure="remove one of the rows",
        )
    return {
        (study_id, series_id): SERIES_DESCRIPTIONS[description]
        for study_id, series_id, description in table.select(SERIES_COLUMNS).iter_rows()
    }


def read_points(path: Path) -> pl.DataFrame:
    """Return the annotated points: condition and level by our names, numbers as given.

    Raises
    ------
    InputError
        If a column is missing, a cell is empty, a condition or level is unknown, or a number is
        none.
    """
    table = read_text_csv(path, columns=POINT_COLUMNS)
    _check_filled(table, ("study_id", "series_id"), path)
    table = table.with_columns(
        _named(table, "condition", CONDITION_TEXTS, path), _named(table, "level", LEVEL_TEXTS, path)
    )
    _check_known(table, "condition", CONDITION_TEXTS, path)
    _check_known(table, "level", LEVEL_TEXTS, path)
    return table.select(
        "study_id",
        "series_id",
        pl.col("condition").replace_strict(CONDITION_TEXTS),
        pl.col("level").replace_strict(LEVEL_TEXTS),
        _to_numbers(table, "instance_number", path, whole=True),
        _to_numbers(table, "x", path, whole=False),
        _to_numbers(table, "y", path, whole=False),
    )


def _named(table: pl.DataFrame, column: str, known: Iterable[str], path: Path) -> pl.Series:
    """Return a column of names, those that are spelt otherwise as the data set spells them."""
    return to_known(table, column, {letters_of(text): text for text in known}, path)


def _check_filled(table: pl.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    """Every row has an id."""
    for column in columns:
        empty = table.filter(pl.col(column).is_null())
        if empty.height:
            raise InputError(
                what=column,
                where=f"{path} line {empty['line'][0]}",
                got="nothing",
                expected="an id",
                cure="fill it in or remove the row",
            )


def _check_known(table: pl.DataFrame, column: str, known: Mapping[str, str], path: Path) -> None:
    """Every cell holds one of the known texts."""
    unknown = table.filter(pl.col(column).is_in(list(known)).fill_null(value=False).not_())
    if unknown.height:
        raise InputError(
            what=f"unknown {column}",
            where=f"{path} line {unknown['line'][0]}",
            got=repr((unknown[column][0] or "")[:80]),
            expected="one of " + ", ".join(known),
            cure="correct the cell",
        )


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
