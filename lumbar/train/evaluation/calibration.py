"""Calibration and ranking of probabilities: reliability, confusion, area under the ROC curve.

The metric counts a moderate cell twice and a severe one four times, so the best prediction is not
the frequency of a severity but its share of that weight. Reliability compares with these shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from lumbar.cache.labels import UNKNOWN, Severities
from lumbar.cache.names import GROUP_CELLS, N_SEVERITIES, SEVERITIES
from lumbar.train.evaluation.metric import SEVERITY_WEIGHTS, normalise

BINS = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One reliability bin: mean predicted probability and observed share, for a tenth of the range.

    ``predicted`` is their mean probability and ``observed`` the severity's share of their labels,
    both weighted as the metric weighs the cells; ``cells`` counts them.
    """

    predicted: float
    observed: float
    cells: int


Reliability = dict[str, dict[str, list[ReliabilityBin]]]
"""By group of conditions and severity; bins without a cell are left out."""

Confusion = dict[str, list[list[int]]]
"""By group of conditions: cells counted by true severity (rows) and most probable one (columns)."""


def reliability(probabilities: Float[np.ndarray, "n 25 3"], severities: Severities) -> Reliability:
    """Return mean predicted probability and observed share, in ten bins of probability."""
    return {
        group: {
            severity: _bins(predicted[:, s], truth == s, np.take(SEVERITY_WEIGHTS, truth))
            for s, severity in enumerate(SEVERITIES)
        }
        for group, (predicted, truth) in _known_cells(probabilities, severities).items()
    }


def confusion(probabilities: Float[np.ndarray, "n 25 3"], severities: Severities) -> Confusion:
    """Count the cells of each group by true and most probable severity."""
    tables = {}
    for group, (predicted, truth) in _known_cells(probabilities, severities).items():
        pairs = truth * N_SEVERITIES + predicted.argmax(axis=1)
        counts = np.bincount(pairs, minlength=N_SEVERITIES**2)
        tables[group] = counts.reshape(N_SEVERITIES, N_SEVERITIES).tolist()
    return tables


def _known_cells(
    probabilities: Float[np.ndarray, "n 25 3"], severities: Severities
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, by group, the probabilities (m, 3) and the severities (m,) of the labelled cells."""
    normalised = normalise(probabilities, severities)
    found = {}
    for group, cells in GROUP_CELLS.items():
        known = severities[:, cells] != UNKNOWN
        truth = severities[:, cells][known].astype(np.intp)
        found[group] = normalised[:, cells][known], truth
    return found


def _bins(probability: np.ndarray, is_true: np.ndarray, weight: np.ndarray) -> list[ReliabilityBin]:
    place = np.minimum((probability * BINS).astype(np.intp), BINS - 1)
    cells = np.bincount(place, minlength=BINS)
    weights = np.bincount(place, weight, BINS)
    predicted = np.bincount(place, weight * probability, BINS)
    observed = np.bincount(place, weight * is_true, BINS)
    return [
        ReliabilityBin(float(predicted[b] / weights[b]), float(observed[b] / weights[b]), int(n))
        for b, n in enumerate(cells)
        if n
    ]


def auc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float | None:
    """Return the probability that a positive scores above a negative; None if a class is absent.

    Source: U = R - n(n + 1) / 2, with R the sum of the positives' mean ranks; AUC = U / (n m).
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    u = mean_ranks[group][positive].sum() - n_positive * (n_positive + 1) / 2
    return float(u / (n_positive * n_negative))
