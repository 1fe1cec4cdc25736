"""Predictions of studies, in memory and in ``oof.parquet``.

``oof.parquet`` holds out-of-fold predictions, one row per study: ``study_id`` and 75 columns of
probabilities. That of a blend has two more columns, of lists: ``training_prior``, 75 numbers, and
``by_prior``, 25 truth values. For a run, its configuration and its checkpoint hold both.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.names import N_CELLS, N_SEVERITIES, TARGET_COLUMNS


@dataclass(frozen=True, slots=True)
class Predictions:
    """Probabilities of the severities of the 25 cells of each study; a study comes once.

    A cell without a prediction is NaN. ``training_prior`` is the prior of the studies that the
    models were trained on, for each predicted study; None where these are unknown. ``by_prior``
    marks the cells that hold this prior because no model predicts them; None if there is no such
    cell, or none is known.
    """

    study_ids: tuple[str, ...]
    probabilities: Float64[np.ndarray, "n 25 3"]
    training_prior: Float64[np.ndarray, "n 25 3"] | None = None
    by_prior: Bool[np.ndarray, "n 25"] | None = None

    @property
    def is_predicted(self) -> Bool[np.ndarray, "n 25"]:
        """The cells that have a prediction."""
        return np.asarray(~np.isnan(self.probabilities).any(axis=2))

    @property
    def prior_cells(self) -> Bool[np.ndarray, "n 25"]:
        """The cells that are known to hold the training prior."""
        if self.by_prior is not None:
            return self.by_prior
        return np.zeros(self.probabilities.shape[:2], bool)

    def of(self, study_ids: Sequence[str]) -> Predictions:
        """Return the predictions of these studies, in this order; NaN for a study without any."""
        row_of = {study_id: row for row, study_id in enumerate(self.study_ids)}
        rows = [row_of.get(study_id, -1) for study_id in study_ids]

        def select(values: Float64[np.ndarray, "n 25 3"]) -> Float64[np.ndarray, "k 25 3"]:
            absent = np.full((1, N_CELLS, N_SEVERITIES), np.nan)
            return np.asarray(np.concatenate([values, absent])[rows])

        return Predictions(
            tuple(study_ids),
            select(self.probabilities),
            None if self.training_prior is None else select(self.training_prior),
            np.concatenate([self.prior_cells, np.zeros((1, N_CELLS), bool)])[rows],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """Return the predictions of all parts, which hold different studies."""
        priors = [part.training_prior for part in parts if part.training_prior is not None]
        return cls(
            tuple(chain.from_iterable(part.study_ids for part in parts)),
            np.concatenate(
                [np.empty((0, N_CELLS, N_SEVERITIES)), *(part.probabilities for part in parts)]
            ),
            np.concatenate(priors) if priors and len(priors) == len(parts) else None,
            np.concatenate([np.empty((0, N_CELLS), bool), *(part.prior_cells for part in parts)]),
        )


def join(tables: Sequence[Predictions], files: Sequence[Path]) -> Predictions:
    """Return the predictions of several files as one.

    Raises
    ------
    InputError
        If two files predict the same study, because nothing says which one is right.
    """
    seen: dict[str, Path] = {}
    for table, file in zip(tables, files, strict=True):
        for study_id in table.study_ids:
            if study_id in seen:
                raise InputError(
                    what="a study is predicted in two files",
                    where=file,
                    got=f"study {study_id}, which {seen[study_id]} has too",
                    expected="files of different studies, such as those of several folds",
                    cure="evaluate each alone, name runs to average them, or use --against",
                )
            seen[study_id] = file
    return Predictions.concatenate(tables)


TRAINING_PRIOR, BY_PRIOR = "training_prior", "by_prior"
LISTS = {
    TRAINING_PRIOR: (pl.List(pl.Float64), len(TARGET_COLUMNS)),
    BY_PRIOR: (pl.List(pl.Boolean), N_CELLS),
}
"""The columns of lists: their type and the length of each."""


def read_oof(path: Path) -> Predictions:
    """Read predictions in Parquet: ``study_id`` as text and 75 float columns, one row per study.

    Raises
    ------
    MissingError, InputError
        If there is no such file, its columns are wrong, or a study comes twice.
    """
    try:
        table = pl.read_parquet(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingError(
            what="no such file",
            where=path,
            got="nothing",
            expected="the held-out predictions of a run",
            cure="name a run's folder; the file is there after its first epoch",
        ) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            what="predictions that cannot be read",
            where=path,
            got=error,
            expected="a Parquet file",
            cure="train again: the file is damaged",
        ) from error
    floats = {name for name, kind in table.schema.items() if kind.is_float()}
    if table.schema.get("study_id") != pl.String or floats != set(TARGET_COLUMNS):
        missing = sorted({"study_id", *TARGET_COLUMNS} - set(table.columns))
        raise InputError(
            what="columns of predictions",
            where=path,
            got=f"{len(table.columns)} columns, missing {missing[:4]}",
            expected="study_id as text and the 75 target columns as floats",
        )
    twice = table.filter(pl.col("study_id").is_duplicated())
    if twice.height:
        raise InputError(
            what="a study is predicted twice",
            where=path,
            got=twice["study_id"][0],
            expected="one row per study",
        )
    values = table.select(TARGET_COLUMNS).to_numpy().astype(np.float64)
    study_ids = tuple(table["study_id"].to_list())
    probabilities = values.reshape(-1, N_CELLS, N_SEVERITIES)
    if not LISTS.keys() <= set(table.columns):
        return Predictions(study_ids, probabilities)
    prior, by_prior = (_read_lists(table, name, where=path) for name in LISTS)
    return Predictions(study_ids, probabilities, prior.reshape(probabilities.shape), by_prior)


def write_oof(path: Path, predictions: Predictions) -> None:
    """Write predictions in the order of their ids, and their training priors where known.

    Probabilities are written in float32. The file is written whole or not at all.
    """
    n = len(predictions.study_ids)
    values = predictions.probabilities.reshape(n, -1).astype(np.float32)
    table = pl.DataFrame(values, schema=list(TARGET_COLUMNS))
    table = table.insert_column(0, pl.Series("study_id", list(predictions.study_ids)))
    if predictions.training_prior is not None:
        lists = (predictions.training_prior.reshape(n, -1), predictions.prior_cells)
        table = table.with_columns(
            pl.Series(name, of.tolist(), dtype=kind)
            for (name, (kind, _)), of in zip(LISTS.items(), lists, strict=True)
        )
    buffer = io.BytesIO()
    table.sort("study_id").write_parquet(buffer)
    write_atomically(path, buffer.getvalue())


def _read_lists(table: pl.DataFrame, name: str, *, where: Path) -> np.ndarray:
    """Return a column of lists as an array; raise `InputError` for another type or length."""
    column = table[name]
    kind, length = LISTS[name]
    if (
        column.dtype != kind
        or column.explode().null_count()
        or not (column.list.len() == length).all()
    ):
        raise InputError(
            what="columns of predictions",
            where=where,
            got=f"{name}: {column.dtype}",
            expected=f"lists of {length} in every row",
            cure="fit the blend again: the file was changed",
        )
    return np.array(column.to_list()).reshape(table.height, length)
