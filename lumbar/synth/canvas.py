"""A canvas for one slice: intensities, and the spine coordinates of every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32

SEARCH_STRIDE = 4
"""Windows are found on every fourth row and column, then widened by four pixels."""

EDGE_MM = 1.2
"""Width of the transition between two tissues: the blur of the acquisition."""

Plane = Float32[np.ndarray, "h w"]
Range = tuple[float, float]


@dataclass(frozen=True)
class Canvas:
    """Intensities of a slice or of a window of it, and (x, s, n) in millimetres of each pixel."""

    image: Plane
    x: Plane
    s: Plane
    n: Plane

    def window(self, x: Range, s: Range, n: Range) -> Canvas | None:
        """Return a view of the pixels inside a box in spine coordinates, or None without any."""
        view = self.find(x, s, n)
        if view is None:
            return None
        return Canvas(self.image[view], self.x[view], self.s[view], self.n[view])

    def find(self, x: Range, s: Range, n: Range) -> tuple[slice, slice] | None:
        """Return the rows and columns inside a box in spine coordinates, or None without any."""
        hit = np.ones(self._searched[0][0].shape, bool)
        for (values, low, high, pad), limits in zip(self._searched, (x, s, n), strict=True):
            start, stop = limits[0] - pad, limits[1] + pad
            if start > high or stop < low:
                return None
            if start > low:
                hit &= values > start
            if stop < high:
                hit &= values < stop
        rows, columns = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
        if not len(rows):
            return None
        return _widen(rows), _widen(columns)

    @cached_property
    def _searched(self) -> tuple[tuple[Plane, float, float, float], ...]:
        """Every fourth value of x, s and n, their range, and a margin of half a step or more."""
        found = []
        for plane in (self.x, self.s, self.n):
            values = plane[::SEARCH_STRIDE, ::SEARCH_STRIDE].copy()
            pad = 1.0 + max(
                float(np.abs(np.diff(values[:2, 0])).max(initial=0)),
                float(np.abs(np.diff(values[0, :2])).max(initial=0)),
            )
            found.append((values, float(values.min()), float(values.max()), pad))
        return tuple(found)

    def paint(self, distance: Plane, value: Plane | float, edge: float = EDGE_MM) -> None:
        """Paint a value where the signed distance to a surface (mm) is negative; blend the edge."""
        alpha = distance * np.float32(-1 / edge)
        alpha += np.float32(0.5)
        np.clip(alpha, 0, 1, out=alpha)
        self.mix(alpha, value)

    def mix(self, alpha: Plane, value: Plane | float) -> None:
        """Blend a value in with a weight from 0 to 1."""
        alpha *= np.subtract(value, self.image, dtype=np.float32)
        np.add(self.image, alpha, out=self.image)


def ellipse(a: Plane, b: Plane, radius_a: Plane | float, radius_b: Plane | float) -> Plane:
    """Return the approximate distance (mm) to an ellipse's outline, negative inside."""
    q = np.square(a / radius_a) + np.square(b / radius_b)
    return np.asarray((np.sqrt(q) - 1) * np.minimum(radius_a, radius_b), np.float32)


def ellipsoid(a: Plane, b: Plane, c: Plane, radii: tuple[float, float, float]) -> Plane:
    """Return the approximate distance (mm) to an ellipsoid's surface, negative inside."""
    q = np.square(a * np.float32(1 / radii[0]))
    q += np.square(b * np.float32(1 / radii[1]))
    q += np.square(c * np.float32(1 / radii[2]))
    return np.asarray((np.sqrt(q) - 1) * np.float32(min(radii)), np.float32)


def _widen(indices: np.ndarray) -> slice:
    start = max(0, (int(indices[0]) - 1) * SEARCH_STRIDE)
    return slice(start, (int(indices[-1]) + 1) * SEARCH_STRIDE + 1)
