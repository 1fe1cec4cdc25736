"""The learning rate at every step, as numbers."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["cosine", "one_cycle", "constant"]

ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 250_000
"""Where one cycle starts and ends, as parts of the peak: torch's defaults."""


def learning_rate_factor(
    step: int, *, steps: int, warmup: float, kind: ScheduleName = "cosine"
) -> float:
    """Return the factor on the peak rate at ``step`` of ``steps``.

    ``warmup`` is a fraction of all steps. ``cosine`` and ``constant`` rise over it in a line, from
    above zero; then the one falls along a cosine to zero behind the last step (Loshchilov and
    Hutter, SGDR, 2017) and the other stays. ``one_cycle`` rises over it along a cosine from a 25th
    of the peak and falls along another to nearly nothing at the last step (Smith and Topin,
    Super-Convergence, 2018; the numbers are those of torch's `OneCycleLR`).
    """
    if kind == "one_cycle":
        return _one_cycle(step, steps=steps, warmup=warmup)
    warm = math.ceil(warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if kind == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _one_cycle(step: int, *, steps: int, warmup: float) -> float:
    peak = max(warmup * steps - 1, 0)
    if step < peak:
        return _along_cosine(ONE_CYCLE_START, 1.0, step / peak)
    return _along_cosine(1.0, ONE_CYCLE_END, min((step - peak) / max(steps - 1 - peak, 1), 1.0))


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
