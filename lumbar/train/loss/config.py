"""The configuration of the loss: a run's section ``loss``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, assert_never

import torch
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, field_validator

from lumbar.cache.names import GROUP_CELLS, LEVELS, N_CELLS, SHOWN_CONDITIONS, SeriesType


class LossConfig(BaseModel):
    """The loss.

    ``weights`` are those of normal/mild, moderate and severe, by default the metric's.
    ``conditions`` is ``shown``, those annotated on the series type, or ``all``. ``average`` takes
    the mean over all ``cells``, or first over each of the metric's ``parts``. ``any_severe`` is the
    weight of the metric's fourth part, where the other parts weigh one;
    ``any_severe_temperature`` smooths its maximum over the levels.
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
            msg = "at least one weight must be above 0, or nothing is learnt"
            raise ValueError(msg)
        return weights

    def check_samples(self, types: Iterable[SeriesType], *, discs: bool) -> None:
        """Raise `ValueError` if samples of these types cannot have the any-severe term."""
        if not self.any_severe:
            return
        if discs:
            msg = "loss.any_severe=0, since discs are single levels"
            raise ValueError(msg)
        if not trained_cells(self, types)[GROUP_CELLS["spinal"]].all():
            msg = (
                "loss.any_severe=0, or loss.conditions=all: these series are not trained on the "
                "spinal canal"
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
