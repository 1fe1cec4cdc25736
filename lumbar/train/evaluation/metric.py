"""The metric of RSNA 2024: a weighted log loss, the mean of four parts; lower is better.

A part that has no labelled row does not exist: it is None, and the total is the mean over the parts
that do exist. On the data of the competition all four exist.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Float64

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN, Severities
from lumbar.cache.names import CONDITION_GROUPS, GROUP_CELLS, SEVERE

SEVERITY_WEIGHTS = (1.0, 2.0, 4.0)
"""Weights of normal/mild, moderate, severe."""

LOG_EPS = float(np.finfo(np.float64).eps)
"""Probabilities are clipped to [LOG_EPS, 1 - LOG_EPS] before the logarithm."""


@dataclass(frozen=True, slots=True)
class Score:
    """The four parts, None where nothing of it is labelled, and the mean of those that exist."""

    spinal: float | None
    foraminal: float | None
    subarticular: float | None
    any_severe_spinal: float | None
    total: float

    def to_json(self) -> dict[str, float | None]:
        """Return the parts and the total by name."""
        return asdict(self)


PARTS = (*CONDITION_GROUPS, "any_severe_spinal")
"""The four parts of the metric, in the order of `StudyTerms`."""


@dataclass(frozen=True, slots=True)
class StudyTerms:
    """What each study adds to the four parts: a part is the sum of losses by that of weights.

    ``losses`` are weighted already. A study without a label of a part has zeros there. So the score
    of any choice of studies, also with repeats, is a matter of sums.
    """

    losses: Float64[np.ndarray, "n 4"]
    weights: Float64[np.ndarray, "n 4"]


def score(probabilities: Float[np.ndarray, "n 25 3"], severities: Severities) -> Score:
    """Score probabilities against severities; computed in float64.

    Source: the evaluation page of the competition. Rows are renormalised to sum one, then clipped.
    Unknown cells are left out of every part, also of the maxima over a study's spinal levels.

    Raises
    ------
    InputError
        If no cell is labelled, or a labelled row is negative, not finite or all zero.
    """
    terms = study_terms(probabilities, severities)
    parts, total = parts_and_total(terms.losses.sum(axis=0), terms.weights.sum(axis=0))
    if np.isnan(total):
        raise InputError(
            what="nothing to score",
            got="no labelled cell",
            expected="at least one study with a label",
            cure="preprocess with the label CSV or choose other studies",
        )
    named = {
        name: None if np.isnan(part) else float(part)
        for name, part in zip(PARTS, parts, strict=True)
    }
    return Score(**named, total=float(total))


def study_terms(probabilities: Float[np.ndarray, "n 25 3"], severities: Severities) -> StudyTerms:
    """Return what each study adds to the parts; raise `InputError` as `score` does for a row."""
    normalised = normalise(probabilities, severities)
    cell_losses, cell_weights = _cell_terms(normalised, severities)
    any_loss, any_weight = _any_severe_terms(
        normalised[:, GROUP_CELLS["spinal"]], severities[:, GROUP_CELLS["spinal"]]
    )
    losses = [cell_losses[:, cells].sum(axis=1) for cells in GROUP_CELLS.values()]
    weights = [cell_weights[:, cells].sum(axis=1) for cells in GROUP_CELLS.values()]
    return StudyTerms(
        np.stack([*losses, any_loss], axis=1), np.stack([*weights, any_weight], axis=1)
    )


def parts_and_total(
    losses: Float64[np.ndarray, "*n 4"], weights: Float64[np.ndarray, "*n 4"]
) -> tuple[Float64[np.ndarray, "*n 4"], Float64[np.ndarray, "*n"]]:
    """Return the parts of summed terms, NaN where nothing is labelled, and their means."""
    parts = np.full(losses.shape, np.nan)
    np.divide(losses, weights, out=parts, where=weights > 0)
    there = ~np.isnan(parts)
    count = there.sum(axis=-1)
    total = np.full(count.shape, np.nan)
    np.divide(np.where(there, parts, 0.0).sum(axis=-1), count, out=total, where=count > 0)
    return parts, total


def cell_losses(
    probabilities: Float[np.ndarray, "n 25 3"], severities: Severities
) -> tuple[Float64[np.ndarray, "n 25"], Float64[np.ndarray, "n 25"]]:
    """Return the weighted loss and the weight of every cell, 0 where it is unknown."""
    return _cell_terms(normalise(probabilities, severities), severities)


def normalise(
    probabilities: Float[np.ndarray, "n 25 3"], severities: Severities
) -> Float64[np.ndarray, "n 25 3"]:
    """Return rows in float64 that sum to one; raise `InputError` where a labelled row cannot."""
    rows = probabilities.astype(np.float64)
    sums = rows.sum(axis=2, keepdims=True)
    usable = np.isfinite(sums[..., 0]) & (sums[..., 0] > 0) & (rows >= 0).all(axis=2)
    wrong = np.argwhere(~usable & (severities != UNKNOWN))
    if len(wrong):
        study, cell = wrong[0]
        raise InputError(
            what="probabilities to score",
            where=f"row {study}, cell {cell}",
            got=rows[study, cell].tolist(),
            expected="three finite values, none negative, not all zero",
        )
    rows[~usable] = np.nan
    sums[~usable] = 1.0
    return np.asarray(rows / sums)


def _cell_terms(
    probabilities: Float64[np.ndarray, "n cells 3"], severities: np.ndarray
) -> tuple[Float64[np.ndarray, "n cells"], Float64[np.ndarray, "n cells"]]:
    """Return ``w (-ln p_true)`` and ``w`` of every cell, 0 where it is unknown."""
    known = severities != UNKNOWN
    truth = np.where(known, severities, 0).astype(np.intp)
    p_true = np.take_along_axis(probabilities, truth[..., None], axis=2)[..., 0]
    p_true = np.where(known, p_true, 1.0)
    weights = np.where(known, np.take(SEVERITY_WEIGHTS, truth), 0.0)
    return -weights * np.log(np.clip(p_true, LOG_EPS, 1 - LOG_EPS)), weights


def _any_severe_terms(
    probabilities: Float64[np.ndarray, "n 5 3"], severities: np.ndarray
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the binary loss of "any level is severe" times a study's worst weight, and that."""
    known = severities != UNKNOWN
    worst = severities.max(axis=1).astype(np.intp)
    q = np.where(known, probabilities[:, :, SEVERE], 0.0).max(axis=1)
    q = np.clip(q, LOG_EPS, 1 - LOG_EPS)
    weights = np.where(known.any(axis=1), np.take(SEVERITY_WEIGHTS, np.maximum(worst, 0)), 0.0)
    return -weights * np.where(worst == SEVERE, np.log(q), np.log1p(-q)), weights
