"""``submission.csv``: 25 rows per study, ``row_id,normal_mild,moderate,severe``."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

from lumbar.cache.errors import InputError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.label_csv import read_text_csv
from lumbar.cache.names import CELLS, N_CELLS, N_SEVERITIES, SEVERITIES
from lumbar.cache.spelling import match_ids
from lumbar.train.evaluation.predictions import Predictions

ROW_ORDER = tuple(sorted(range(N_CELLS), key=CELLS.__getitem__))
"""The cells in the alphabetical order of ``sample_submission.csv``: indices into `CELLS`."""

_CELL_OF_NAME = {name: index for index, name in enumerate(CELLS)}
_log = logging.getLogger(__name__)
_ROW_ID = rf"^(.+)_({'|'.join(CELLS)})$"


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a submission in order: the index of a study among the predicted, and a cell."""

    row_ids: list[str]
    study: Int64[np.ndarray, " rows"]
    cell: Int64[np.ndarray, " rows"]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """The study and the cell of each row."""
        return list(zip(self.study.tolist(), self.cell.tolist(), strict=True))


def rows_of(study_ids: Sequence[str], *, where: Path) -> Rows:
    """Return 25 rows per study in alphabetical order; studies are in the order of their ids.

    Raises
    ------
    InputError
        If a study comes twice.
    """
    if len(set(study_ids)) != len(study_ids):
        raise InputError(
            what="studies to predict",
            where=where,
            got=f"{len(study_ids) - len(set(study_ids))} ids more than once",
            expected="every study once",
        )
    order = sorted(range(len(study_ids)), key=study_ids.__getitem__)
    return Rows(
        [f"{study_ids[i]}_{CELLS[cell]}" for i in order for cell in ROW_ORDER],
        np.repeat(np.array(order, np.int64), N_CELLS),
        np.tile(np.array(ROW_ORDER, np.int64), len(order)),
    )


def rows_of_sample(sample: Path, study_ids: Sequence[str]) -> Rows:
    """Return the rows of a ``sample_submission.csv``, in its order.

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If its columns or row ids are not those of a submission, or a row's study is not there.
    """
    table = _read_rows(sample)
    place = {study_id: i for i, study_id in enumerate(study_ids)}
    unknown = table.filter(pl.col("study_id").is_in(place).not_())
    if unknown.height:
        raise InputError(
            what="a row's study is not predicted",
            where=_line(sample, unknown),
            got=unknown["study_id"][0],
            expected="the studies that are predicted",
        )
    return Rows(
        table["row_id"].to_list(),
        np.array([place[study_id] for study_id in table["study_id"]], np.int64),
        table["cell"].to_numpy().astype(np.int64),
    )


def sample_studies(sample: Path) -> list[str]:
    """Return the studies that a ``sample_submission.csv`` names; raises as `rows_of_sample`."""
    table = _read_rows(sample)
    return table["study_id"].unique(maintain_order=True).to_list()


def check_sample(sample: Path, study_ids: Collection[str], *, is_named: bool) -> None:
    """Compare a ``sample_submission.csv`` with the studies to predict.

    A sample that the user did not name must have all rows of these studies; otherwise predictions
    would be lost unnoticed. A warning tells which predicted rows the sample lacks, and which of its
    studies are absent.

    Raises
    ------
    InputError
        If the sample names none of the studies, or spells them in another way; or if it lacks rows
        and the user did not name it. Also as `rows_of_sample`.
    """
    table = _read_rows(sample)
    rows = Counter(table["study_id"].to_list())
    there = set(study_ids)
    strange = sorted(rows.keys() - there)
    meant = match_ids(strange, there)
    if not rows.keys() & there or meant:
        got = ", ".join(f"{a} for {b}" for a, b in list(meant.items())[:3]) or _some(strange)
        raise InputError(
            what="the sample submission names studies otherwise than the images"
            if meant
            else "the sample submission names none of the studies to predict",
            where=sample,
            got=got,
            expected=f"studies such as {_some(there)}",
            cure="name by --sample the file that belongs to these images, or move this one away",
        )
    short = sorted(study_id for study_id in there if rows[study_id] < N_CELLS)
    if short and not is_named:
        raise InputError(
            what="the sample submission beside the images does not cover them",
            where=sample,
            got=f"{len(short)} of {len(there)} studies without all of their rows: {_some(short)}",
            expected=f"{N_CELLS} rows for each study that there is to predict",
            cure="name it by --sample to write its rows alone, name another one, or move it away",
        )
    if short:
        _log.warning(
            "%s lacks rows of %d studies that are predicted, and they are not written: %s",
            *(sample, len(short), _some(short)),
        )
    if strange:
        _log.warning(
            "%s names %d studies that are not there; their rows get the training prior: %s",
            *(sample, len(strange), _some(strange)),
        )


def _some(names: Iterable[str]) -> str:
    """Return the first of some names, in order."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")


def write_submission(path: Path, predictions: Predictions, *, rows: Rows | None = None) -> None:
    """Write a submission whole or not at all; its rows are renormalised in float64.

    Without ``rows``, studies are in the order of their ids as text, and the 25 rows of each in
    alphabetical order. Numbers are written with the fewest digits that read back as the same
    float64.

    Raises
    ------
    InputError
        If a study comes twice, or a row is negative, not finite or all zero.
    """
    rows = rows_of(predictions.study_ids, where=path) if rows is None else rows
    values = predictions.probabilities[rows.study, rows.cell]
    sums = values.sum(axis=1)
    wrong = np.flatnonzero(~(np.isfinite(sums) & (sums > 0) & (values >= 0).all(axis=1)))
    if len(wrong):
        raise InputError(
            what="probabilities to write",
            where=rows.row_ids[wrong[0]],
            got=values[wrong[0]].tolist(),
            expected="three finite values, none negative, not all zero",
            cure="check the model: its training may have diverged",
        )
    table = pl.DataFrame({"row_id": rows.row_ids}, schema={"row_id": pl.String}).with_columns(
        pl.Series(name, values[:, s] / sums) for s, name in enumerate(SEVERITIES)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, table.write_csv().encode())


def read_submission(path: Path) -> Predictions:
    """Read a submission in any order of rows; values are kept as they are, not renormalised.

    Studies come in ascending order of their ids as text.

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If columns, row ids or values are not what a submission has, or a study lacks rows.
    """
    table = _read_rows(path)
    _check_complete(table, path)
    table = _parse_values(table, path).sort("study_id", "cell")
    study_ids = table["study_id"].unique(maintain_order=True).to_list()
    values = table.select(SEVERITIES).to_numpy().astype(np.float64)
    return Predictions(tuple(study_ids), values.reshape(-1, N_CELLS, N_SEVERITIES))


def _read_rows(path: Path) -> pl.DataFrame:
    """Read a submission, its study and cell in every row; row ids must be known and unique."""
    table = read_text_csv(path, columns=("row_id", *SEVERITIES)).with_columns(
        study_id=pl.col("row_id").str.extract(_ROW_ID, 1),
        cell=pl.col("row_id")
        .str.extract(_ROW_ID, 2)
        .replace_strict(_CELL_OF_NAME, default=None, return_dtype=pl.Int8),
    )
    unknown = table.filter(pl.col("cell").is_null())
    if unknown.height:
        raise InputError(
            what="unknown row_id",
            where=_line(path, unknown),
            got=repr(unknown["row_id"][0]),
            expected="{study_id}_{condition}_{level}, such as 1_spinal_canal_stenosis_l1_l2",
            cure="correct or remove the row",
        )
    twice = table.filter(pl.col("row_id").is_first_distinct().not_())
    if twice.height:
        raise InputError(
            what="row_id comes twice",
            where=_line(path, twice),
            got=twice["row_id"][0],
            expected="every row_id once",
            cure="remove one of the rows",
        )
    return table


def _check_complete(table: pl.DataFrame, path: Path) -> None:
    """Every study has its 25 rows."""
    if not table.height:
        raise InputError(
            what="a submission without rows",
            where=path,
            expected=f"{N_CELLS} rows per study",
            cure="name another file",
        )
    short = table.group_by("study_id").agg("cell").filter(pl.col("cell").list.len() < N_CELLS)
    if short.height:
        study_id, cells = short.sort("study_id").row(0)
        missing = [CELLS[cell] for cell in ROW_ORDER if cell not in cells]
        raise InputError(
            what="missing rows",
            where=path,
            got=f"{N_CELLS - len(missing)} rows of study {study_id}, without {missing[0]}"
            + (f" (and {short.height - 1} more studies like it)" if short.height > 1 else ""),
            expected=f"{N_CELLS} rows per study",
            cure="add the missing rows",
        )


def _parse_values(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Turn the text of the values into float64; finite, not negative, not all zero in a row."""
    values = [pl.col(name).cast(pl.Float64, strict=False) for name in SEVERITIES]
    good = [(v.is_finite() & (v >= 0)).fill_null(value=False) for v in values]
    for name, is_good in zip(SEVERITIES, good, strict=True):
        wrong = table.filter(is_good.not_())
        if wrong.height:
            raise InputError(
                what="value of a submission",
                where=f"{_line(path, wrong)} column {name}",
                got=repr(wrong[name][0]),
                expected="a finite number, not negative",
                cure="correct the value",
            )
    parsed = table.with_columns(values)
    empty = parsed.filter(pl.sum_horizontal(SEVERITIES) == 0)
    if empty.height:
        raise InputError(
            what="values of a submission",
            where=_line(path, empty),
            got="three zeros",
            expected="three probabilities",
            cure="correct the row",
        )
    return parsed


def _line(path: Path, rows: pl.DataFrame) -> str:
    """Name the file and line of the first of some rows."""
    return f"{path} line {rows['line'][0]}"
