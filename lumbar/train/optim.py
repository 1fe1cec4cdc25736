"""The optimiser and the learning rates: AdamW with a rate per stage, and their schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, assert_never

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from lumbar.train.loss import LossConfig

ScheduleName = Literal["cosine", "one_cycle", "constant"]

ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 250_000
"""Start and end of one cycle, as parts of the peak: torch's defaults."""


class OptimConfig(BaseModel):
    """AdamW with a schedule; ``lr`` is the peak, ``warmup`` a fraction of all steps.

    ``batch`` is the sum over all processes. Each process computes its share in ``accumulate``
    parts, which takes less memory and gives the same gradient. Each stage of the network has
    ``layer_decay`` times the rate of the next one towards the head. With ``ema`` above 0 a moving
    average of the weights with this decay is validated and saved. A run ends after ``patience``
    epochs without a better score; with 0 it never ends early.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(30, ge=1)
    batch: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    lr: float = Field(5e-4, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    weight_decay: float = Field(0.02, ge=0)
    schedule: ScheduleName = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    patience: int = Field(0, ge=0)


class FinishConfig(BaseModel):
    """A second phase after ``optim.epochs``: ``epochs`` that train the head alone.

    Its loss has the metric's weights by default, so that the first phase may be unweighted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(0, ge=0)
    lr: float = Field(1e-4, gt=0)
    loss: LossConfig = LossConfig()


def make_optimiser(
    stages: Sequence[Sequence[nn.Parameter]], config: OptimConfig
) -> torch.optim.AdamW:
    """Return AdamW over stages, ordered from the input to the head, each with its own rate."""
    if config.layer_decay == 1:
        # One group: fewer and larger kernels.
        stages = [[parameter for stage in stages for parameter in stage]]
    groups = [
        {"params": list(stage), "lr": config.lr * config.layer_decay**above}
        for above, stage in enumerate(reversed(stages))
        if stage
    ]
    weights = [parameter for stage in stages for parameter in stage]
    return torch.optim.AdamW(
        groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused_for(weights)
    )


def fused_for(parameters: Iterable[nn.Parameter]) -> bool | None:
    """Return the ``fused`` argument of torch's optimisers: True on GPUs, else torch's default."""
    return True if all(parameter.is_cuda for parameter in parameters) else None


def load_state(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state, which may come from another device.

    ``fused`` stays that of the optimiser's own device; it decides where torch keeps the step count.
    """
    groups = [
        {**saved, "fused": own["fused"]}
        for saved, own in zip(state["param_groups"], optimiser.param_groups, strict=True)
    ]
    optimiser.load_state_dict({**state, "param_groups": groups})


def learning_rate_factor(
    step: int, *, steps: int, warmup: float, kind: ScheduleName = "cosine"
) -> float:
    """Return the factor on the peak rate at ``step`` of ``steps``.

    ``warmup`` is a fraction of all steps. ``cosine`` and ``constant`` rise linearly over it, from
    above zero; then ``cosine`` falls along a cosine to zero behind the last step (Loshchilov and
    Hutter, SGDR, 2017), and ``constant`` stays. ``one_cycle`` rises along a cosine from a 25th of
    the peak, and falls along another to nearly zero at the last step (Smith and Topin,
    Super-Convergence, 2018; the numbers are those of torch's `OneCycleLR`).
    """
    warm = math.ceil(warmup * steps)
    match kind:
        case "one_cycle":
            return _one_cycle(step, steps=steps, warmup=warmup)
        case "constant":
            return _rising(step, warm)
        case "cosine":
            fallen = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
            return fallen if step >= warm else _rising(step, warm)
        case _:
            assert_never(kind)


def _rising(step: int, warm: int) -> float:
    return min((step + 1) / (warm + 1), 1.0)


def _one_cycle(step: int, *, steps: int, warmup: float) -> float:
    peak = max(warmup * steps - 1, 0)
    if step < peak:
        return _along_cosine(ONE_CYCLE_START, 1.0, step / peak)
    return _along_cosine(1.0, ONE_CYCLE_END, min((step - peak) / max(steps - 1 - peak, 1), 1.0))


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
