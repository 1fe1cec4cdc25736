"""Score predictions against labels, beside what the labels alone would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int8

from lumbar.cache.errors import InputError
from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.labels import UNKNOWN, Severities, severities_of
from lumbar.cache.names import CONDITIONS, LEVELS, SEVERITIES, cell_index
from lumbar.cache.store import Cache
from lumbar.train.auc import auc
from lumbar.train.bootstrap import Intervals, by_patient, difference_intervals, score_intervals
from lumbar.train.calibration import Confusion, Reliability, confusion, reliability
from lumbar.train.metric import PARTS, Score, cell_losses, normalise, score, study_terms
from lumbar.train.oof import read_oof
from lumbar.train.predicted import Predicted
from lumbar.train.prior import for_studies, uniform, weighted_prior, with_floor
from lumbar.train.submission import read_submission


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One condition at one level: its labelled studies, and its part of the loss.

    ``loss`` and ``prior_loss`` are weighted means over the studies, None where none is labelled.
    ``auc`` tells moderate or severe from normal/mild.
    """

    condition: str
    level: str
    severities: dict[str, int]
    loss: float | None
    prior_loss: float | None
    auc: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A score, its baselines on the same studies, and what was counted.

    ``intervals`` are those of the score, from resampled studies. ``prior`` is the 1/2/4-weighted
    prior of ``prior_labels``. ``auc`` tells moderate or severe from normal/mild, by condition; None
    where a class is absent. ``n_unlabelled`` studies were predicted and have no label row.
    """

    score: Score
    intervals: Intervals
    uniform: Score
    prior: Score
    prior_labels: str
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
class Comparison:
    """One prediction less another on the studies that both have; below 0 the first is better.

    ``intervals`` are of the differences: both are scored on the same resampled studies.
    """

    score: Score
    against: Score
    difference: dict[str, float | None]
    intervals: Intervals
    n_studies: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain types."""
        return asdict(self)


def evaluate(
    probabilities: Float[np.ndarray, "n 25 3"],
    severities: Severities,
    *,
    n_unlabelled: int = 0,
    training: Int8[np.ndarray, "m 25"] | None = None,
    study_ids: Sequence[str] | None = None,
    patients: Mapping[str, str] | None = None,
) -> Evaluation:
    """Evaluate probabilities of labelled studies; the prior is of ``training`` where it is given.

    ``patients`` names the patient of ``study_ids`` that share theirs, for the intervals.

    Raises
    ------
    InputError
        If no cell is labelled, or a labelled row is negative, not finite or all zero.
    """
    n = len(severities)
    prior = weighted_prior(severities) if training is None else with_floor(weighted_prior(training))
    of_prior = for_studies(prior, n)
    counts = _counts(severities)
    return Evaluation(
        score=score(probabilities, severities),
        intervals=score_intervals(
            by_patient(
                study_terms(probabilities, severities),
                study_ids or [str(row) for row in range(n)],
                patients,
            )
        ),
        uniform=score(for_studies(uniform(), n), severities),
        prior=score(of_prior, severities),
        prior_labels="the evaluated studies" if training is None else "the training studies",
        auc=_condition_aucs(probabilities, severities),
        cells=_cell_results(probabilities, severities, of_prior),
        reliability=reliability(probabilities, severities),
        confusion=confusion(probabilities, severities),
        n_studies=n,
        n_cells=sum(counts.values()),
        n_unlabelled=n_unlabelled,
        severities=counts,
    )


def evaluate_predicted(
    predicted: Predicted,
    labels: pl.DataFrame,
    *,
    where: object,
    patients: Mapping[str, str] | None = None,
) -> Evaluation:
    """Evaluate those of the predicted studies that a labels table has.

    Raises
    ------
    InputError
        If no study is in both, no cell is labelled, or a labelled row is no probabilities.
    """
    labels = labelled(predicted, labels, where=where)
    study_ids = labels["study_id"].to_list()
    return evaluate(
        predicted.of(study_ids),
        severities_of(labels),
        n_unlabelled=len(predicted.study_ids) - len(study_ids),
        study_ids=study_ids,
        patients=patients,
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
    check_complete(predicted, table, where=submission)
    study_ids = table["study_id"].to_list()
    return evaluate(
        predicted.of(study_ids),
        severities_of(table),
        n_unlabelled=len(set(predicted.study_ids) - set(study_ids)),
        training=severities_of(read_label_csv(training_labels)) if training_labels else None,
    )


def evaluate_oof(oof: Path, cache: Cache) -> Evaluation:
    """Evaluate out-of-fold predictions against the labels of a cache.

    Studies of the cache that the file lacks are not evaluated: a run may have left folds out.

    Raises
    ------
    MissingError, InputError
        If the file is missing or damaged, or shares no study with the labels.
    """
    return evaluate_predicted(read_oof(oof), cache.labels, where=oof, patients=cache.patients)


def compare(
    predicted: Predicted,
    against: Predicted,
    labels: pl.DataFrame,
    *,
    where: object,
    patients: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare two predictions on the labelled studies that both have.

    Raises
    ------
    InputError
        If there is no such study, no cell is labelled, or a labelled row is no probabilities.
    """
    labels = labelled(predicted, labels, where=where)
    labels = labelled(against, labels, where=where)
    study_ids, severities = labels["study_id"].to_list(), severities_of(labels)
    ours, theirs = predicted.of(study_ids), against.of(study_ids)
    first, second = score(ours, severities), score(theirs, severities)
    other = second.to_json()
    difference = {
        name: None if value is None or (minus := other[name]) is None else value - minus
        for name, value in first.to_json().items()
    }
    assert difference.keys() == {*PARTS, "total"}
    return Comparison(
        score=first,
        against=second,
        difference=difference,
        intervals=difference_intervals(
            by_patient(study_terms(ours, severities), study_ids, patients),
            by_patient(study_terms(theirs, severities), study_ids, patients),
        ),
        n_studies=len(study_ids),
    )


def labelled(predicted: Predicted, labels: pl.DataFrame, *, where: object) -> pl.DataFrame:
    """Return the label rows of the predicted studies, ordered by study; at least one."""
    both = labels.filter(pl.col("study_id").is_in(predicted.study_ids)).sort("study_id")
    if not both.height:
        raise InputError(
            what="no predicted study is labelled",
            where=where,
            got=f"{len(predicted.study_ids)} predicted and {labels.height} labelled studies",
            expected="studies in common",
            cure="name the labels of these studies: the cache that a run was trained on",
        )
    return both


def check_complete(predicted: Predicted, labels: pl.DataFrame, *, where: Path) -> None:
    """Raise `InputError` unless every labelled study is predicted, as in a submission."""
    study_ids: Sequence[str] = labels["study_id"].to_list()
    present = set(predicted.study_ids)
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
    of_prior: Float[np.ndarray, "n 25 3"],
) -> list[CellResult]:
    """Return the table of conditions and levels, in the order of the cells."""
    losses, weights = cell_losses(probabilities, severities)
    prior_losses, _ = cell_losses(of_prior, severities)
    abnormal = 1 - normalise(probabilities, severities)[:, :, 0]
    results = []
    for c, condition in enumerate(CONDITIONS):
        for level_number, level in enumerate(LEVELS):
            cell = cell_index(c, level_number)
            weight = weights[:, cell].sum()
            results.append(
                CellResult(
                    condition=condition,
                    level=level,
                    severities=_counts(severities[:, cell]),
                    loss=float(losses[:, cell].sum() / weight) if weight else None,
                    prior_loss=float(prior_losses[:, cell].sum() / weight) if weight else None,
                    auc=_auc(abnormal[:, cell], severities[:, cell]),
                )
            )
    return results
