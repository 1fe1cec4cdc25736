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
from lumbar.cache.names import CONDITION_GROUPS, LEVELS, SEVERITIES

SEVERITY_WEIGHTS = (1.0, 2.0, 4.0)
"""Weights of normal/mild, moderate, severe."""

LOG_EPS = float(np.finfo(np.float64).eps)
"""Probabilities are clipped to [LOG_EPS, 1 - LOG_EPS] before the logarithm."""

SEVERE = SEVERITIES.index("severe")


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


def score(probabilities: Float[np.ndarray, "n 25 3"], severities: Severities) -> Score:
    """Score probabilities against severities; computed in float64.

    Source: the evaluation page of the competition. Rows are renormalised to sum one, then clipped.
    Unknown cells are left out of every part, also of the maxima over a study's spinal levels.

    Raises
    ------
    InputError
        If no cell is labelled, or a labelled row is negative, not finite or all zero.
    """
    normalised = normalise(probabilities, severities)
    losses = {
        name: _group_loss(normalised[:, cells], severities[:, cells])
        for name, cells in GROUP_CELLS.items()
    }
    spinal = GROUP_CELLS["spinal"]
    losses["any_severe_spinal"] = _any_severe_loss(normalised[:, spinal], severities[:, spinal])
    present = [loss for loss in losses.values() if loss is not None]
    if not present:
        raise InputError(
            what="nothing to score",
            got="no labelled cell",
            expected="at least one study with a label",
            cure="preprocess with the label CSV or choose other studies",
        )
    return Score(**losses, total=float(np.mean(present)))


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


def _group_cells() -> dict[str, list[int]]:
    """Return the cells of each group of conditions."""
    n_levels = len(LEVELS)
    return {
        name: [c * n_levels + level for c in conditions for level in range(n_levels)]
        for name, conditions in CONDITION_GROUPS.items()
    }


GROUP_CELLS = _group_cells()
"""Group name -> indices into the 25 cells."""


def _group_loss(
    probabilities: Float64[np.ndarray, "n cells 3"], severities: np.ndarray
) -> float | None:
    """Return ``sum w (-ln p_true) / sum w`` over the labelled cells of a group."""
    known = severities != UNKNOWN
    if not known.any():
        return None
    truth = severities[known].astype(np.intp)
    p_true = np.take_along_axis(probabilities[known], truth[:, None], axis=1)[:, 0]
    losses = -np.log(np.clip(p_true, LOG_EPS, 1 - LOG_EPS))
    return float(np.average(losses, weights=np.take(SEVERITY_WEIGHTS, truth)))


def _any_severe_loss(
    probabilities: Float64[np.ndarray, "n 5 3"], severities: np.ndarray
) -> float | None:
    """Return the binary loss of "any level is severe", each study weighted by its worst level."""
    labelled = (severities != UNKNOWN).any(axis=1)
    if not labelled.any():
        return None
    known = severities[labelled] != UNKNOWN
    worst = severities[labelled].max(axis=1).astype(np.intp)
    severe = np.where(known, probabilities[labelled][:, :, SEVERE], 0.0).max(axis=1)
    q = np.clip(severe, LOG_EPS, 1 - LOG_EPS)
    losses = -np.where(worst == SEVERE, np.log(q), np.log1p(-q))
    return float(np.average(losses, weights=np.take(SEVERITY_WEIGHTS, worst)))
