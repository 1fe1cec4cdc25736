"""The learning rate at every step, as numbers."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, *, steps: int, warmup: float) -> float:
    """Return the factor on the peak rate at ``step`` of ``steps``: linear warm-up, then a cosine.

    ``warmup`` is a fraction of all steps. The first step has a rate above zero, the last one below
    that of the step before it. Source of the cosine: Loshchilov and Hutter, SGDR (2017).
    """
    warm = math.ceil(warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
