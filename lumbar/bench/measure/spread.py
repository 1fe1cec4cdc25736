"""A number that was measured several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the repeats, and the least and the greatest of them."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float | int]) -> Spread:
        """Summarise the repeats."""
        return cls(float(np.median(values)), float(min(values)), float(max(values)))

    @classmethod
    def of_ratios(cls, above: Sequence[float], below: Sequence[float]) -> Spread:
        """Summarise the ratios of two things that were measured in turn, round by round."""
        return cls.of([one / other for one, other in zip(above, below, strict=True)])

    def times(self, factor: float | int) -> Spread:
        """Return the same in another unit."""
        return Spread(factor * self.value, factor * self.low, factor * self.high)

    def text(self, digits: int = 1) -> str:
        """Return the median with its spread."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"
