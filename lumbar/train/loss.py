"""Losses over the cells that are known and that the series type shows."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.nn import functional

from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import LEVELS, N_CELLS, N_SEVERITIES, SHOWN_CONDITIONS, SeriesType


class LossConfig(BaseModel):
    """What is minimised.

    ``weights`` are those of normal/mild, moderate and severe; the metric's are the default.
    ``conditions`` is ``shown``, those annotated on the series type, or ``all``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cross_entropy", "bce"] = "cross_entropy"
    weights: tuple[float, float, float] = (1.0, 2.0, 4.0)
    conditions: Literal["shown", "all"] = "shown"


class CellLoss(nn.Module):
    """The weighted mean loss of the known cells of a batch; 0 where none is known.

    ``cross_entropy`` takes the three severities of a cell as one choice, so its targets sum to one;
    ``bce`` takes them as three yes-or-no questions of the one-hot vector.
    """

    weights: Float[torch.Tensor, "3"]
    trained: Bool[torch.Tensor, "25"]

    def __init__(self, config: LossConfig, series_type: SeriesType) -> None:
        super().__init__()
        self.kind = config.kind
        self.register_buffer("weights", torch.tensor(config.weights), persistent=False)
        self.register_buffer("trained", trained_cells(config, series_type), persistent=False)

    def forward(
        self, logits: Float[torch.Tensor, "b 25 3"], severity: Int64[torch.Tensor, "b 25"]
    ) -> Float[torch.Tensor, ""]:
        """Return the loss of a batch."""
        truth = severity.clamp(min=0)
        weight = self.weight(severity)
        if self.kind == "cross_entropy":
            loss = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none")
            loss = loss.view_as(weight)
        else:
            one_hot = functional.one_hot(truth, N_SEVERITIES).to(logits.dtype)
            loss = functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
            loss = loss.sum(dim=2)
        return (weight * loss).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)

    def weight(self, severity: Int64[torch.Tensor, "b 25"]) -> Float[torch.Tensor, "b 25"]:
        """Return what each cell weighs: nothing where it is unknown or not trained."""
        counts = (severity != UNKNOWN) & self.trained
        return self.weights[severity.clamp(min=0)] * counts

    def probabilities(self, logits: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25 3"]:
        """Return probabilities that sum to one over the severities of a cell."""
        if self.kind == "cross_entropy":
            return logits.softmax(dim=2)
        # The shares of the sigmoids, by way of logarithms, since all three may be tiny.
        return functional.logsigmoid(logits).softmax(dim=2)


def trained_cells(config: LossConfig, series_type: SeriesType) -> Bool[torch.Tensor, "25"]:
    """Return which of the 25 cells a series type is trained on."""
    if config.conditions == "all":
        return torch.ones(N_CELLS, dtype=torch.bool)
    conditions = torch.tensor(SHOWN_CONDITIONS[series_type])
    return torch.isin(torch.arange(N_CELLS) // len(LEVELS), conditions)
