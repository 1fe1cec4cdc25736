"""Losses over the cells that are known and that the series type shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, NonNegativeFloat
from torch import nn
from torch.nn import functional

from lumbar.cache.names import LEVELS, N_CELLS, SHOWN_CONDITIONS, SeriesType


class LossConfig(BaseModel):
    """What is minimised.

    ``weights`` are those of normal/mild, moderate and severe; the metric's are the default.
    ``conditions`` is ``shown``, those annotated on the series type, or ``all``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["cross_entropy", "bce"] = "cross_entropy"
    weights: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (1.0, 2.0, 4.0)
    conditions: Literal["shown", "all"] = "shown"


class CellLoss(nn.Module):
    """The weighted mean loss of the known cells of a batch; 0 where none is known.

    ``cross_entropy`` takes the three severities of a cell as one choice, so its targets sum to one;
    ``bce`` takes them as three yes-or-no questions of the one-hot vector. A target that is shared
    between severities, as mixup makes it, has the losses of each in these shares.
    """

    severity_weights: Float[torch.Tensor, "3"]
    trained: Bool[torch.Tensor, "25"]

    def __init__(self, config: LossConfig, types: Iterable[SeriesType]) -> None:
        super().__init__()
        self.kind = config.kind
        self.register_buffer("severity_weights", torch.tensor(config.weights), persistent=False)
        self.register_buffer("trained", trained_cells(config, types), persistent=False)

    def forward(
        self, logits: Float[torch.Tensor, "b 25 3"], target: Float[torch.Tensor, "b 25 3"]
    ) -> Float[torch.Tensor, ""]:
        """Return the loss of a batch; the targets of an unknown cell are 0, 0, 0."""
        return self.total(self.sums(logits, target), self.weights(target))

    def sums(
        self, logits: Float[torch.Tensor, "b 25 3"], target: Float[torch.Tensor, "b 25 3"]
    ) -> Float[torch.Tensor, " t"]:
        """Return the weighted sum of each of the loss's terms over a batch, or a part of one."""
        loss = self._weight(target) * self._loss_of_each(logits)
        return loss.sum().reshape(1)

    def weights(self, target: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, " t"]:
        """Return what each term's sum is divided by; sums and weights of parts add up exactly."""
        return self._weight(target).sum().reshape(1)

    def total(
        self, sums: Float[torch.Tensor, " t"], weights: Float[torch.Tensor, " t"]
    ) -> Float[torch.Tensor, ""]:
        """Return the loss; a term without weight is nothing, so no known cell gives 0."""
        return (sums / weights.where(weights > 0, 1.0)).sum()

    def weight(self, target: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25"]:
        """Return what each cell weighs: nothing where it is unknown or not trained."""
        return self._weight(target).sum(dim=2)

    def _weight(self, target: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25 3"]:
        """Return what each severity of each cell weighs, by its share in the target."""
        return target * self.severity_weights * self.trained[:, None]

    def _loss_of_each(self, logits: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25 3"]:
        """Return the loss that each severity would have, were it the true one."""
        logits = logits.float()
        if self.kind == "cross_entropy":
            return -logits.log_softmax(dim=2)
        # Softplus is the loss of a "no"; the one "yes" of a one-hot vector takes its logit off.
        return functional.softplus(logits).sum(dim=2, keepdim=True) - logits

    def probabilities(self, logits: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25 3"]:
        """Return probabilities that sum to one over the severities of a cell."""
        if self.kind == "cross_entropy":
            return logits.softmax(dim=2)
        # The shares of the sigmoids, by way of logarithms, since all three may be tiny.
        return functional.logsigmoid(logits).softmax(dim=2)


def trained_cells(config: LossConfig, types: Iterable[SeriesType]) -> Bool[torch.Tensor, "25"]:
    """Return which of the 25 cells are trained on series of these types."""
    if config.conditions == "all":
        return torch.ones(N_CELLS, dtype=torch.bool)
    conditions = torch.tensor([c for t in types for c in SHOWN_CONDITIONS[t]])
    return torch.isin(torch.arange(N_CELLS) // len(LEVELS), conditions)
