"""Score predictions against labels, beside baselines that use no image.

The baselines are the training prior, where the training studies are known, and the best constant
of the scored labels. Cells without a model hold the training prior. The score counts them, as the
competition does, and marks the parts that hold them; AUC, reliability and confusion leave them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN, Severities, severities_of
from lumbar.cache.names import CONDITIONS, LEVELS, SEVERITIES, cell_index
from lumbar.train.evaluation.baselines import for_studies, parts_by_prior, uniform, weighted_prior
from lumbar.train.evaluation.bootstrap import (
    Intervals,
    by_patient,
    difference_intervals,
    score_intervals,
)
from lumbar.train.evaluation.calibration import Confusion, Reliability, auc, confusion, reliability
from lumbar.train.evaluation.metric import PARTS, Score, cell_losses, normalise, score, study_terms
from lumbar.train.evaluation.predictions import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One condition at one level: its labelled studies, and its part of the loss.

    The losses are weighted means over the studies, None where no study is labelled or the training
    prior is not known. ``by_prior`` counts the labelled studies whose cell holds the training
    prior. ``auc`` tells moderate or severe from normal/mild in the others.
    """

    condition: str
    level: str
    severities: dict[str, int]
    loss: float | None
    training_prior_loss: float | None
    best_constant_loss: float | None
    by_prior: int
    auc: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A score, its baselines on the same studies, and what was counted.

    ``intervals`` are those of the score, from resampled patients. ``training_prior`` is the score
    of the 1/2/4-weighted prior of the training studies, None where these are not known.
    ``best_constant`` is the lowest score that a constant has on the three groups of these labels.
    ``parts_by_prior`` are the parts of the score, and ``total``, that contain cells which hold the
    training prior. ``auc`` tells moderate or severe from normal/mild, by condition; None where a
    class is absent. It, ``reliability`` and ``confusion`` count models' predictions alone.
    ``n_unlabelled`` studies were predicted and have no label row.
    """

    score: Score
    intervals: Intervals
    uniform: Score
    training_prior: Score | None
    best_constant: Score
    parts_by_prior: list[str]
    auc: dict[str, float | None]
    cells: list[CellResult]
    reliability: Reliability
    confusion: Confusion
    n_studies: int
    n_cells: int
    n_unlabelled: int
    severities: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain types."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreComparison:
    """One prediction minus another on the studies that both have; below 0 the first is better.

    ``intervals`` are those of the differences: both are scored on the same resampled patients.
    ``parts_by_prior`` contain cells that hold the training prior, in one or the other.
    """

    score: Score
    against: Score
    difference: dict[str, float | None]
    intervals: Intervals
    parts_by_prior: list[str]
    n_studies: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain types."""
        return asdict(self)


def evaluate(
    predictions: Predictions,
    labels: pl.DataFrame,
    *,
    where: object,
    patients: Mapping[str, str] | None = None,
) -> Evaluation:
    """Evaluate those of the predicted studies that a labels table has.

    ``patients`` names the patient of each study that shares one with others, for the intervals.

    Raises
    ------
    InputError
        If no study is in both, no cell is labelled, or a labelled row is negative, not finite or
        all zero.
    """
    labels = labelled(predictions, labels, where=where)
    scored, severities = predictions.of(labels["study_id"].to_list()), severities_of(labels)
    probabilities, prior, n = scored.probabilities, scored.training_prior, len(severities)
    by_model = np.where(scored.prior_cells, UNKNOWN, severities).astype(severities.dtype)
    best_constant = for_studies(weighted_prior(severities), n)
    counts = _counts(severities)
    terms = by_patient(study_terms(probabilities, severities), scored.study_ids, patients)
    return Evaluation(
        score=score(probabilities, severities),
        intervals=score_intervals(terms),
        uniform=score(for_studies(uniform(), n), severities),
        training_prior=None if prior is None else score(prior, severities),
        best_constant=score(best_constant, severities),
        parts_by_prior=parts_by_prior(scored.prior_cells, severities),
        auc=_condition_aucs(probabilities, by_model),
        cells=_cell_results(probabilities, severities, by_model, prior, best_constant),
        reliability=reliability(probabilities, by_model),
        confusion=confusion(probabilities, by_model),
        n_studies=n,
        n_cells=sum(counts.values()),
        n_unlabelled=len(predictions.study_ids) - n,
        severities=counts,
    )


def compare(
    predictions: Predictions,
    against: Predictions,
    labels: pl.DataFrame,
    *,
    where: object,
    patients: Mapping[str, str] | None = None,
) -> ScoreComparison:
    """Compare two predictions on the labelled studies that both have.

    Raises
    ------
    InputError
        If there is no such study, no cell is labelled, or a labelled row is no probabilities.
    """
    labels = labelled(predictions, labels, where=where)
    labels = labelled(against, labels, where=where)
    study_ids, severities = labels["study_id"].to_list(), severities_of(labels)
    ours, theirs = predictions.of(study_ids), against.of(study_ids)
    first, second = score(ours.probabilities, severities), score(theirs.probabilities, severities)
    other = second.to_json()
    difference = {
        name: None if value is None or (minus := other[name]) is None else value - minus
        for name, value in first.to_json().items()
    }
    assert difference.keys() == {*PARTS, "total"}
    return ScoreComparison(
        score=first,
        against=second,
        difference=difference,
        intervals=difference_intervals(
            by_patient(study_terms(ours.probabilities, severities), study_ids, patients),
            by_patient(study_terms(theirs.probabilities, severities), study_ids, patients),
        ),
        parts_by_prior=parts_by_prior(ours.prior_cells | theirs.prior_cells, severities),
        n_studies=len(study_ids),
    )


def labelled(predictions: Predictions, labels: pl.DataFrame, *, where: object) -> pl.DataFrame:
    """Return the label rows of the predicted studies, ordered by study; at least one."""
    both = labels.filter(pl.col("study_id").is_in(predictions.study_ids)).sort("study_id")
    if not both.height:
        raise InputError(
            what="no predicted study is labelled",
            where=where,
            got=f"{len(predictions.study_ids)} predicted and {labels.height} labelled studies",
            expected="studies in common",
            cure="name the labels of these studies: the cache that a run was trained on",
        )
    return both


def check_complete(predictions: Predictions, labels: pl.DataFrame, *, where: Path) -> None:
    """Raise `InputError` unless every labelled study is predicted, as in a submission."""
    study_ids: Sequence[str] = labels["study_id"].to_list()
    present = set(predictions.study_ids)
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


def _counts(severities: np.ndarray) -> dict[str, int]:
    return {name: int((severities == s).sum()) for s, name in enumerate(SEVERITIES)}


def _condition_aucs(
    probabilities: Float[np.ndarray, "n 25 3"], severities: Severities
) -> dict[str, float | None]:
    """Return, by condition, how well moderate or severe is told from normal/mild."""
    abnormal = 1 - normalise(probabilities, severities)[:, :, 0]
    aucs = {}
    for c, condition in enumerate(CONDITIONS):
        cells = slice(cell_index(c, 0), cell_index(c + 1, 0))
        aucs[condition] = _auc(abnormal[:, cells], severities[:, cells])
    return aucs


def _auc(abnormal: np.ndarray, severities: np.ndarray) -> float | None:
    known = severities != UNKNOWN
    return auc(abnormal[known], severities[known] > 0)


def _cell_results(
    probabilities: Float[np.ndarray, "n 25 3"],
    severities: Severities,
    by_model: Severities,
    training_prior: Float[np.ndarray, "n 25 3"] | None,
    best_constant: Float[np.ndarray, "n 25 3"],
) -> list[CellResult]:
    """Return the table of conditions and levels, in the order of the cells."""
    losses = _mean_losses(probabilities, severities)
    unknown = [None] * len(losses)
    of_prior = unknown if training_prior is None else _mean_losses(training_prior, severities)
    of_constant = _mean_losses(best_constant, severities)
    by_prior = ((by_model == UNKNOWN) & (severities != UNKNOWN)).sum(axis=0)
    abnormal = 1 - normalise(probabilities, by_model)[:, :, 0]
    return [
        CellResult(
            condition=condition,
            level=level,
            severities=_counts(severities[:, cell]),
            loss=losses[cell],
            training_prior_loss=of_prior[cell],
            best_constant_loss=of_constant[cell],
            by_prior=int(by_prior[cell]),
            auc=_auc(abnormal[:, cell], by_model[:, cell]),
        )
        for cell, (condition, level) in enumerate(product(CONDITIONS, LEVELS))
    ]


def _mean_losses(
    probabilities: Float[np.ndarray, "n 25 3"], severities: Severities
) -> list[float | None]:
    """Return the weighted mean loss of every cell, None where it has no label."""
    losses, weights = cell_losses(probabilities, severities)
    return [
        float(losses[:, cell].sum() / weight) if weight else None
        for cell, weight in enumerate(weights.sum(axis=0))
    ]
