"""Predictions that look at no image: what every model has to beat, and what stands in for one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from lumbar.cache.labels import Severities
from lumbar.cache.names import N_CELLS, N_SEVERITIES
from lumbar.train.metric import GROUP_CELLS, SEVERITY_WEIGHTS

CellPrior = Float64[np.ndarray, "25 3"]

PRIOR_FLOOR = 1e-3
"""Share of the uniform distribution that `with_floor` mixes in."""


def uniform() -> CellPrior:
    """Return one third for every severity of every cell."""
    return np.full((N_CELLS, N_SEVERITIES), 1 / N_SEVERITIES)


def class_prior(severities: Severities) -> CellPrior:
    """Return how often each severity occurs in each cell."""
    return _prior(severities, np.ones(N_SEVERITIES))


def weighted_prior(severities: Severities) -> CellPrior:
    """Return each severity's share of the metric's weight in each cell.

    No other prediction that is the same for every study has a lower loss on the three groups of
    these very labels. A severity that no label has gets zero: see `with_floor`.
    """
    return _prior(severities, np.asarray(SEVERITY_WEIGHTS))


def with_floor(prior: CellPrior) -> CellPrior:
    """Return a prior for studies other than those it was fitted on: nothing is impossible there."""
    return (1 - PRIOR_FLOOR) * prior + PRIOR_FLOOR / N_SEVERITIES


def for_studies(prior: CellPrior, n_studies: int) -> Float64[np.ndarray, "n 25 3"]:
    """Return the same prior for every study."""
    return np.repeat(prior[None], n_studies, axis=0)


def _prior(severities: Severities, weights: Float64[np.ndarray, "3"]) -> CellPrior:
    """Return weighted shares; an empty cell takes its group's share, an empty group a third."""
    sums_cs = (severities[:, :, None] == np.arange(N_SEVERITIES)).sum(axis=0) * weights
    prior = uniform()
    for cells in GROUP_CELLS.values():
        group = sums_cs[cells].sum(axis=0)
        for cell in cells:
            sums = sums_cs[cell] if sums_cs[cell].any() else group
            if sums.any():
                prior[cell] = sums / sums.sum()
    return prior
