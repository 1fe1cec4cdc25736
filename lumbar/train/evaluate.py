"""Score predictions against labels, beside what the labels alone would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int8

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.labels import UNKNOWN, Severities, severities_of
from lumbar.cache.names import (
    CONDITIONS,
    LEVELS,
    N_CELLS,
    N_SEVERITIES,
    SEVERITIES,
    TARGET_COLUMNS,
)
from lumbar.cache.store import Cache
from lumbar.train.auc import auc
from lumbar.train.metric import Score, normalise, score
from lumbar.train.prior import for_studies, uniform, weighted_prior, with_floor
from lumbar.train.submission import read_submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A score, its baselines on the same studies, and what was counted.

    ``prior`` is the 1/2/4-weighted prior of ``prior_labels``. ``auc`` tells moderate or severe from
    normal/mild, by condition; None where a class is absent. ``n_unlabelled`` studies were predicted
    and have no label row.
    """

    score: Score
    uniform: Score
    prior: Score
    prior_labels: str
    auc: dict[str, float | None]
    n_studies: int
    n_cells: int
    n_unlabelled: int
    severities: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain types."""
        return asdict(self)


def evaluate(
    probabilities: Float[np.ndarray, "n 25 3"],
    severities: Severities,
    *,
    n_unlabelled: int = 0,
    training: Int8[np.ndarray, "m 25"] | None = None,
) -> Evaluation:
    """Evaluate probabilities of labelled studies; the prior is of ``training`` where it is given.

    Raises
    ------
    InputError
        If no cell is labelled, or a labelled row is negative, not finite or all zero.
    """
    n = len(severities)
    prior = weighted_prior(severities) if training is None else with_floor(weighted_prior(training))
    counts = [int((severities == s).sum()) for s in range(N_SEVERITIES)]
    return Evaluation(
        score=score(probabilities, severities),
        uniform=score(for_studies(uniform(), n), severities),
        prior=score(for_studies(prior, n), severities),
        prior_labels="the evaluated studies" if training is None else "the training studies",
        auc=_condition_aucs(probabilities, severities),
        n_studies=n,
        n_cells=sum(counts),
        n_unlabelled=n_unlabelled,
        severities=dict(zip(SEVERITIES, counts, strict=True)),
    )


def evaluate_submission(
    submission: Path, labels: Path, *, training_labels: Path | None = None
) -> Evaluation:
    """Evaluate a submission file against a ``train.csv``; further studies in it are counted only.

    Raises
    ------
    MissingError, InputError
        If a file is missing or damaged, or the submission lacks a labelled study.
    """
    predicted = read_submission(submission)
    table = read_label_csv(labels)
    study_ids = table["study_id"].to_list()
    row_of = {study_id: row for row, study_id in enumerate(predicted.study_ids)}
    _check_present(study_ids, row_of, where=submission)
    return evaluate(
        predicted.probabilities[[row_of[study_id] for study_id in study_ids]],
        severities_of(table),
        n_unlabelled=len(set(row_of) - set(study_ids)),
        training=severities_of(read_label_csv(training_labels)) if training_labels else None,
    )


def evaluate_oof(oof: Path, cache: Cache) -> Evaluation:
    """Evaluate out-of-fold predictions against the labels of a cache.

    ``oof`` is a Parquet file with ``study_id`` and the 75 columns of `TARGET_COLUMNS`. Studies of
    the cache that it lacks are not evaluated: a run may have left folds out.

    Raises
    ------
    MissingError, InputError
        If the file is missing or damaged, or shares no study with the labels.
    """
    predicted = read_oof(oof)
    labels = cache.labels
    both = predicted.select("study_id").join(labels, on="study_id", how="inner").sort("study_id")
    if not both.height:
        raise InputError(
            what="no predicted study is labelled",
            where=oof,
            got=f"{predicted.height} predicted and {labels.height} labelled studies",
            expected="studies in common",
            cure="name the cache that the run was trained on",
        )
    rows = both.select("study_id").join(predicted, on="study_id", how="left", maintain_order="left")
    probabilities = rows.select(TARGET_COLUMNS).to_numpy().reshape(-1, N_CELLS, N_SEVERITIES)
    return evaluate(probabilities, severities_of(both), n_unlabelled=predicted.height - both.height)


def read_oof(path: Path) -> pl.DataFrame:
    """Read out-of-fold predictions: ``study_id`` as text and 75 float columns, one row a study.

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
    return table


def _check_present(study_ids: Sequence[str], present: dict[str, int], *, where: Path) -> None:
    """Every labelled study must be predicted."""
    missing = [study_id for study_id in study_ids if study_id not in present]
    if missing:
        more = ", ..." if len(missing) > 3 else ""
        raise InputError(
            what="labelled studies are missing from the submission",
            where=where,
            got=f"{len(missing)} of {len(study_ids)} missing: {', '.join(missing[:3])}{more}",
            expected="a prediction for every labelled study",
            cure="predict them too, or give labels of the predicted studies alone",
        )


def _condition_aucs(
    probabilities: Float[np.ndarray, "n 25 3"], severities: Severities
) -> dict[str, float | None]:
    """Return, by condition, how well moderate or severe is told from normal/mild."""
    n_levels = len(LEVELS)
    abnormal = 1 - normalise(probabilities, severities)[:, :, 0]
    aucs = {}
    for c, condition in enumerate(CONDITIONS):
        cells = slice(c * n_levels, (c + 1) * n_levels)
        known = severities[:, cells] != UNKNOWN
        aucs[condition] = auc(abnormal[:, cells][known], severities[:, cells][known] > 0)
    return aucs
