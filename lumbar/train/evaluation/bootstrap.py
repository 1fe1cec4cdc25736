"""How sure a score is: intervals from resampled patients, and of the difference of two predictions.

Patients are drawn with replacement, whole, since their studies and the 25 cells of each belong
together; `by_patient` adds up the terms of their studies. Source:
Efron, Tibshirani: An introduction to the bootstrap (1993), chapter 13, percentile intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lumbar.train.evaluation.metric import PARTS, StudyTerms, parts_and_total

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0

_AT_ONCE = 250
"""Resamples a matrix product: with 2,000 studies a few megabytes."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where 95 % of the resampled scores lie."""

    low: float
    high: float


Intervals = dict[str, Interval | None]
"""By part and ``total``; None where nothing of a part is labelled."""


def by_patient(
    terms: StudyTerms, study_ids: Sequence[str], patients: Mapping[str, str] | None
) -> StudyTerms:
    """Return the terms of patients, in the order of the first study of each.

    ``patients`` names the patient of studies that share theirs; where none does the terms stay the
    same to the bit.
    """
    place: dict[str, int] = {}
    shared = patients or {}
    rows = [place.setdefault(shared.get(s, s), len(place)) for s in study_ids]
    losses, weights = (np.zeros((len(place), of.shape[1])) for of in (terms.losses, terms.weights))
    np.add.at(losses, rows, terms.losses)
    np.add.at(weights, rows, terms.weights)
    return StudyTerms(losses, weights)


def score_intervals(terms: StudyTerms, *, seed: int = SEED) -> Intervals:
    """Return the intervals of the four parts and of the total; the same seed gives the same."""
    return _intervals(_resampled_scores(terms, seed))


def difference_intervals(terms: StudyTerms, against: StudyTerms, *, seed: int = SEED) -> Intervals:
    """Return the intervals of score less score, both of the same studies in every resample."""
    assert len(terms.losses) == len(against.losses), "both predict the same studies"
    return _intervals(_resampled_scores(terms, seed) - _resampled_scores(against, seed))


def _resampled_scores(terms: StudyTerms, seed: int) -> Float64[np.ndarray, "resamples 5"]:
    """Return the parts and the total of every resample: sums of terms, as often as each is drawn.

    A resample without a label of a part says nothing of it: NaN.
    """
    rng = np.random.default_rng(seed)
    n = len(terms.losses)
    both = np.concatenate([terms.losses, terms.weights], axis=1)
    sums = []
    for first in range(0, RESAMPLES, _AT_ONCE):
        drawn = rng.integers(n, size=(min(_AT_ONCE, RESAMPLES - first), n))
        drawn += n * np.arange(len(drawn))[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        sums.append(times.astype(np.float64) @ both)
    losses, weights = np.split(np.concatenate(sums), 2, axis=1)
    parts, total = parts_and_total(losses, weights)
    return np.concatenate([parts, total[:, None]], axis=1)


def _intervals(scores: Float64[np.ndarray, "resamples 5"]) -> Intervals:
    outside = (1 - CONFIDENCE) / 2
    intervals: Intervals = {}
    for name, column in zip((*PARTS, "total"), scores.T, strict=True):
        said = column[~np.isnan(column)]
        if len(said):
            low, high = np.quantile(said, [outside, 1 - outside])
            intervals[name] = Interval(float(low), float(high))
        else:
            intervals[name] = None
    return intervals
