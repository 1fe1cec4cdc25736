"""Predictions of studies, in memory and as files.

``oof.parquet`` holds out-of-fold predictions, one row per study: ``study_id`` and 75 columns. A
blend's has two more columns, of lists: ``training_prior``, 75 numbers, and ``by_prior``, 25 truth
values. For a run, its folder holds both.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float64

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.names import N_CELLS, N_SEVERITIES, N_TARGETS, TARGET_COLUMNS


@dataclass(frozen=True, slots=True)
class Predicted:
    """Probabilities of the severities of the 25 cells of every study, each study once.

    ``training_prior`` is that of the studies from which each study's prediction was learnt, None
    where nothing tells them; ``by_prior`` are the cells in which it stands in for a model, none of
    them where it is None.
    """

    study_ids: tuple[str, ...]
    probabilities: Float64[np.ndarray, "n 25 3"]
    training_prior: Float64[np.ndarray, "n 25 3"] | None = None
    by_prior: Bool[np.ndarray, "n 25"] | None = None

    def of(self, study_ids: Sequence[str]) -> Predicted:
        """Return the predictions of some of the studies, in their order."""
        row_of = {study_id: row for row, study_id in enumerate(self.study_ids)}
        rows = [row_of[study_id] for study_id in study_ids]
        return Predicted(
            tuple(study_ids),
            self.probabilities[rows],
            None if self.training_prior is None else self.training_prior[rows],
            self.stands_in[rows],
        )

    @property
    def stands_in(self) -> Bool[np.ndarray, "n 25"]:
        """The cells in which the training prior stands in for a model, as far as it is known."""
        if self.by_prior is not None:
            return self.by_prior
        return np.zeros(self.probabilities.shape[:2], bool)


def join(tables: Sequence[Predicted], files: Sequence[Path]) -> Predicted:
    """Put the studies of several files together.

    Raises
    ------
    InputError
        If two files predict the same study: nothing says which of them is right.
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
    priors = [table.training_prior for table in tables]
    known = [prior for prior in priors if prior is not None]
    return Predicted(
        tuple(seen),
        np.concatenate([table.probabilities for table in tables]),
        np.concatenate(known) if len(known) == len(priors) else None,
        np.concatenate([table.stands_in for table in tables]),
    )


StudyPredictions = dict[str, Float64[np.ndarray, "25 3"]]

TRAINING_PRIOR, BY_PRIOR = "training_prior", "by_prior"
LISTS = {
    TRAINING_PRIOR: (pl.List(pl.Float64), N_TARGETS),
    BY_PRIOR: (pl.List(pl.Boolean), N_CELLS),
}
"""The columns of lists: their type and the length of each."""


def read_oof(path: Path) -> Predicted:
    """Read predictions in Parquet: ``study_id`` as text and 75 float columns, one row a study.

    Raises
    ------
    MissingError, InputError
        If there is no such file, or its columns are others, or a study comes twice.
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
            expected="one row a study",
        )
    values = table.select(TARGET_COLUMNS).to_numpy().astype(np.float64)
    study_ids = tuple(table["study_id"].to_list())
    probabilities = values.reshape(-1, N_CELLS, N_SEVERITIES)
    if not {TRAINING_PRIOR, BY_PRIOR} <= set(table.columns):
        return Predicted(study_ids, probabilities)
    prior = _lists(table, TRAINING_PRIOR, where=path)
    by_prior = _lists(table, BY_PRIOR, where=path)
    return Predicted(study_ids, probabilities, prior.reshape(probabilities.shape), by_prior)


def write_predicted(path: Path, predicted: Predicted) -> None:
    """Write predictions with their training priors and where these stand in, both known."""
    assert predicted.training_prior is not None
    table = oof_table(predicted.study_ids, predicted.probabilities).with_columns(
        pl.Series(
            TRAINING_PRIOR,
            predicted.training_prior.reshape(len(predicted.study_ids), -1).tolist(),
            dtype=LISTS[TRAINING_PRIOR][0],
        ),
        pl.Series(BY_PRIOR, predicted.stands_in.tolist(), dtype=LISTS[BY_PRIOR][0]),
    )
    write_parquet(path, table.sort("study_id"))


def oof_table(study_ids: Sequence[str], probabilities: Float[np.ndarray, "n 25 3"]) -> pl.DataFrame:
    """Return predictions as a table: one row a study, 75 columns of float32."""
    values = probabilities.reshape(len(study_ids), -1).astype(np.float32)
    table = pl.DataFrame(values, schema=list(TARGET_COLUMNS))
    return table.insert_column(0, pl.Series("study_id", list(study_ids)))


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write a table whole or not at all."""
    written = io.BytesIO()
    table.write_parquet(written)
    write_atomically(path, written.getvalue())


def _lists(table: pl.DataFrame, name: str, *, where: Path) -> np.ndarray:
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


def write_oof(path: Path, known: StudyPredictions) -> None:
    """Write held-out predictions: one row a study in order, 75 columns of float32."""
    table = oof_table(list(known), np.stack(list(known.values())))
    write_parquet(path, table.sort("study_id"))
