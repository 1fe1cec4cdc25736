"""The weights of one group of conditions with the lowest loss, by torch's L-BFGS.

The weights are the softmax of free parameters, so that none is negative and they sum to one. Where
the maximum in "any severe" changes to another cell the loss has a kink, at which fitting may stop a
little early: tests hold the loss to 1e-4 of that of SciPy's SLSQP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64

from lumbar.cache.names import SEVERE
from lumbar.train.ensemble.blend import SMALLEST, Space
from lumbar.train.evaluation.metric import SEVERITY_WEIGHTS

SMALL_WEIGHT = 1e-3
"""Fitted weights below this become 0, unless that raises the loss: a member with a small weight may
still count in cells for which the others are not eligible."""
MOST_STEPS = 300
FLATTEST, LEAST_CHANGE = 1e-8, 1e-10
"""Fitting ends at a slope, or at a change of the loss, below these."""
NO_LOSS = 1e-6
"""A loss that rises by less is not worse."""


@dataclass(frozen=True, slots=True)
class GroupCells:
    """The labelled cells of a group for which a member is eligible, study by study.

    ``probabilities`` are 1/3 where a member is not eligible. With ``any_severe`` the loss contains
    the metric's part "any cell of the study is severe" as well.
    """

    probabilities: Float64[np.ndarray, "m cells 3"]
    eligible: Bool[np.ndarray, "m cells"]
    truth: Int64[np.ndarray, " cells"]
    study: Int64[np.ndarray, " cells"]
    any_severe: bool


def fit_weights(cells: GroupCells, space: Space) -> Float64[np.ndarray, " m"]:
    """Return non-negative weights that sum to one; there must be a cell."""
    loss = GroupLoss(cells, space)
    free = torch.zeros(len(cells.probabilities), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=MOST_STEPS,
        tolerance_grad=FLATTEST,
        tolerance_change=LEAST_CHANGE,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(free.softmax(dim=0))
        torch.autograd.backward(value)
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return _without_small(loss, free.detach().softmax(dim=0)).numpy()


def _without_small(loss: GroupLoss, weights: Float[torch.Tensor, " m"]) -> torch.Tensor:
    """Return the weights, summing to one, with 0 for small ones that the loss does not need.

    Each cell keeps a member with a weight: without one, a blend predicts it in another way.
    """
    for member in weights.argsort().tolist():
        if weights[member] < SMALL_WEIGHT:
            fewer = weights.clone()
            fewer[member] = 0
            has_one = loss.eligible[fewer > 0].any(dim=0)
            needs_one = loss.eligible[weights > 0].any(dim=0)
            if torch.equal(has_one, needs_one) and loss(fewer) <= loss(weights) + NO_LOSS:
                weights = fewer
    return weights / weights.sum()


class GroupLoss:
    """The metric's loss of a blend on the cells of a group, as a function of the weights."""

    def __init__(self, cells: GroupCells, space: Space) -> None:
        values = cells.probabilities
        self.values = torch.from_numpy(np.log(values.clip(SMALLEST)) if space == "log" else values)
        self.eligible = torch.from_numpy(cells.eligible)
        self.truth = torch.from_numpy(cells.truth)
        self.space = space
        self.weights = torch.tensor(SEVERITY_WEIGHTS, dtype=torch.float64)
        _, place = np.unique(cells.study, return_inverse=True)
        self.study = torch.from_numpy(place) if cells.any_severe else None

    def __call__(self, weights: Float[torch.Tensor, " m"]) -> Float[torch.Tensor, ""]:
        """Return the weighted log loss of the cells, and that of "any severe" added to it."""
        counted = weights[:, None] * self.eligible
        # Members without a weight count where no other one is eligible.
        counted = torch.where(counted.sum(dim=0) > 0, counted, self.eligible)
        mean = torch.einsum("mc,mcs->cs", counted / counted.sum(dim=0), self.values)
        mixed = mean if self.space == "probability" else mean.softmax(dim=1)
        p_true = mixed.gather(1, self.truth[:, None])[:, 0].clamp(min=SMALLEST)
        loss = _weighted(-p_true.log(), self.weights[self.truth])
        if self.study is None:
            return loss
        q = _max_by(mixed[:, SEVERE], self.study).clamp(SMALLEST, 1 - SMALLEST)
        worst = _max_by(self.truth, self.study)
        losses = torch.where(worst == SEVERE, -q.log(), -torch.log1p(-q))
        return loss + _weighted(losses, self.weights[worst])


def _weighted(losses: torch.Tensor, weights: torch.Tensor) -> Float[torch.Tensor, ""]:
    return (losses * weights).sum() / weights.sum()


def _max_by(values: torch.Tensor, study: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each study."""
    largest = torch.zeros(int(study.max()) + 1, dtype=values.dtype)
    return largest.scatter_reduce(0, study, values, "amax", include_self=False)
