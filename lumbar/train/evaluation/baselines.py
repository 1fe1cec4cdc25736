"""Predictions from labels alone: what every model has to beat, and what cells without one hold.

The *training prior* is made of the labels of the training studies; cells without a model get it.
The *best constant of these labels* is made of the scored labels themselves: no constant scores
better on them, and nobody has it before the labels are known.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from lumbar.cache.labels import UNKNOWN, Severities
from lumbar.cache.names import GROUP_CELLS, N_CELLS, N_SEVERITIES
from lumbar.train.evaluation.metric import SEVERITY_WEIGHTS

CellPrior = Float64[np.ndarray, "25 3"]

PRIOR_FLOOR = 1e-3
"""Share of the uniform distribution that `with_floor` mixes in."""


def uniform() -> CellPrior:
    """Return one third for every severity of every cell."""
    return np.full((N_CELLS, N_SEVERITIES), 1 / N_SEVERITIES)


def weighted_prior(severities: Severities) -> CellPrior:
    """Return each severity's share of the metric's weight in each cell.

    This is the best constant: among predictions that are the same for every study, none has a lower
    loss on the three groups of these labels. With a floor it is the training prior for other
    studies. A severity that no label has gets zero: see `with_floor`.
    """
    return _shares(_one_hot(severities).sum(axis=0) * np.asarray(SEVERITY_WEIGHTS))


def leave_one_out_prior(severities: Severities) -> Float64[np.ndarray, "n 25 3"]:
    """Return for every study the training prior of all the others, as if each were held out.

    A prior of few studies that counted a study's own label would know that label.
    """
    own = _one_hot(severities) * np.asarray(SEVERITY_WEIGHTS)
    return with_floor(_shares(own.sum(axis=0) - own))


def with_floor(prior: Float64[np.ndarray, "*n 25 3"]) -> Float64[np.ndarray, "*n 25 3"]:
    """Return a prior for other studies than those it was made of: no severity has chance zero."""
    floored = (1 - PRIOR_FLOOR) * prior + PRIOR_FLOOR / N_SEVERITIES
    return np.asarray(floored, np.float64)


def for_studies(prior: CellPrior, n_studies: int) -> Float64[np.ndarray, "n 25 3"]:
    """Return the same prior for every study."""
    return np.repeat(prior[None], n_studies, axis=0)


def parts_by_prior(by_prior: Bool[np.ndarray, "n 25"], severities: Severities) -> list[str]:
    """Return the parts of a score, and ``total``, that contain a labelled cell of the prior."""
    counted = by_prior & (severities != UNKNOWN)
    groups = [group for group, cells in GROUP_CELLS.items() if counted[:, cells].any()]
    any_severe = ["any_severe_spinal"] if "spinal" in groups else []
    return [*groups, *any_severe, "total"] if groups else []


def _one_hot(severities: Severities) -> Float64[np.ndarray, "n 25 3"]:
    return np.asarray(severities[:, :, None] == np.arange(N_SEVERITIES), np.float64)


def _shares(sums: Float64[np.ndarray, "*n 25 3"]) -> Float64[np.ndarray, "*n 25 3"]:
    """Return shares; an empty cell takes its group's share, an empty group a third."""
    prior = np.full(sums.shape, 1 / N_SEVERITIES)
    for cells in GROUP_CELLS.values():
        of_cells = sums[..., cells, :]
        group = of_cells.sum(axis=-2, keepdims=True)
        counted = np.where(of_cells.any(axis=-1, keepdims=True), of_cells, group)
        total = counted.sum(axis=-1, keepdims=True)
        shares = counted / np.where(total > 0, total, 1.0)
        prior[..., cells, :] = np.where(total > 0, shares, 1 / N_SEVERITIES)
    return prior
