"""The learning rate at every step, as numbers."""

from __future__ import annotations

import math
from typing import Literal, assert_never

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
