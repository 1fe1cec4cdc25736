"""Confidence intervals of a score, and of the difference of two, from resampled patients.

Whole patients are sampled with replacement, since the cells and studies of one patient are not
independent; `by_patient` adds up the terms of their studies. Source:
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
"""Resamples per matrix product: with 2,000 studies a few megabytes."""


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

    ``patients`` names the patient of each study that shares one with others. Where none does, the
    terms stay the same to the bit.
    """
    place: dict[str, int] = {}
    shared = patients or {}
    rows = [place.setdefault(shared.get(s, s), len(place)) for s in study_ids]
    losses, weights = (np.zeros((len(place), of.shape[1])) for of in (terms.losses, terms.weights))
    np.add.at(losses, rows, terms.losses)
    np.add.at(weights, rows, terms.weights)
    return StudyTerms(losses, weights)


def score_intervals(terms: StudyTerms) -> Intervals:
    """Return the intervals of the four parts and of the total; the same terms give the same."""
    return _intervals(_resampled_scores(terms))


def difference_intervals(terms: StudyTerms, against: StudyTerms) -> Intervals:
    """Return the intervals of one score minus another, on the same patients in every resample."""
    assert len(terms.losses) == len(against.losses), "both predict the same studies"
    return _intervals(_resampled_scores(terms) - _resampled_scores(against))


def _resampled_scores(terms: StudyTerms) -> Float64[np.ndarray, "resamples 5"]:
    """Return the parts and the total of every resample; a part without a label is NaN.

    The terms of a patient are added as often as the patient is sampled.
    """
    rng = np.random.default_rng(SEED)
    n = len(terms.losses)
    both = np.concatenate([terms.losses, terms.weights], axis=1)
    sums = []
    for first in range(0, RESAMPLES, _AT_ONCE):
        sampled = rng.integers(n, size=(min(_AT_ONCE, RESAMPLES - first), n))
        sampled += n * np.arange(len(sampled))[:, None]
        times = np.bincount(sampled.ravel(), minlength=sampled.size).reshape(sampled.shape)
        sums.append(times.astype(np.float64) @ both)
    losses, weights = np.split(np.concatenate(sums), 2, axis=1)
    parts, total = parts_and_total(losses, weights)
    return np.concatenate([parts, total[:, None]], axis=1)


def _intervals(scores: Float64[np.ndarray, "resamples 5"]) -> Intervals:
    outside = (1 - CONFIDENCE) / 2
    intervals: Intervals = {}
    for name, column in zip((*PARTS, "total"), scores.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known):
            low, high = np.quantile(known, [outside, 1 - outside])
            intervals[name] = Interval(float(low), float(high))
        else:
            intervals[name] = None
    return intervals
