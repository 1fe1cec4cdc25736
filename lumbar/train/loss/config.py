"""What is minimised: the keys of a run's section ``loss``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, assert_never

import torch
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, field_validator

from lumbar.cache.names import GROUP_CELLS, LEVELS, N_CELLS, SHOWN_CONDITIONS, SeriesType


class LossConfig(BaseModel):
    """What is minimised.

    ``weights`` are those of normal/mild, moderate and severe; the metric's are the default.
    ``conditions`` is ``shown``, those annotated on the series type, or ``all``.
    ``average`` takes the mean over all ``cells``, or over each of the metric's ``parts`` first.
    ``any_severe`` is the weight of the metric's fourth part beside the others, each of which weighs
    one; ``any_severe_temperature`` makes its maximum over the levels a smooth one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["cross_entropy", "focal", "ordinal", "bce", "soft_disc"] = "cross_entropy"
    weights: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (1.0, 2.0, 4.0)
    conditions: Literal["shown", "all"] = "shown"
    average: Literal["cells", "parts"] = "cells"
    focal_gamma: float = Field(2.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    any_severe: float = Field(0.0, ge=0)
    any_severe_temperature: float = Field(0.0, ge=0)

    @field_validator("weights")
    @classmethod
    def _weigh_something(cls, weights: tuple[float, float, float]) -> tuple[float, float, float]:
        if not any(weights):
            msg = "one weight above 0 at least, for without any nothing is learnt"
            raise ValueError(msg)
        return weights

    def check_samples(self, types: Iterable[SeriesType], *, discs: bool) -> None:
        """Raise `ValueError` where samples of these types cannot have the any-severe term."""
        if not self.any_severe:
            return
        if discs:
            msg = "discs are single levels, so they have no loss.any_severe, which is of the worst"
            raise ValueError(msg)
        if not trained_cells(self, types)[GROUP_CELLS["spinal"]].all():
            msg = (
                "loss.any_severe is of the spinal canal, which these series are not trained on; "
                "with loss.conditions=all they are"
            )
            raise ValueError(msg)


def trained_cells(config: LossConfig, types: Iterable[SeriesType]) -> Bool[torch.Tensor, "25"]:
    """Return which of the 25 cells are trained on series of these types."""
    match config.conditions:
        case "all":
            return torch.ones(N_CELLS, dtype=torch.bool)
        case "shown":
            conditions = torch.tensor([c for t in types for c in SHOWN_CONDITIONS[t]])
            return torch.isin(torch.arange(N_CELLS) // len(LEVELS), conditions)
        case _:
            assert_never(config.conditions)
