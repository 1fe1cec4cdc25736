"""A painter's canvas over one slice: every pixel knows its spine coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

SEARCH_STRIDE = 4
"""Windows are searched on every fourth row and column, and widened by as many pixels."""

EDGE_MM = 1.2
"""Width over which one tissue goes over into the next: the blur of the acquisition."""

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
        """Return the view of this canvas that holds a box in spine coordinates, or None."""
        coarse = (slice(None, None, SEARCH_STRIDE),) * 2
        hit = _between(self.x[coarse], x, self._pad(self.x))
        if not hit.any():
            return None
        hit &= _between(self.s[coarse], s, self._pad(self.s))
        if not hit.any():
            return None
        hit &= _between(self.n[coarse], n, self._pad(self.n))
        rows, columns = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
        if not len(rows):
            return None
        view = (_widen(rows), _widen(columns))
        return Canvas(self.image[view], self.x[view], self.s[view], self.n[view])

    def paint(self, distance: Plane, value: Plane | float, edge: float = EDGE_MM) -> None:
        """Blend a value in where the signed distance to a surface (mm) is negative."""
        alpha = distance * np.float32(-1 / edge)
        alpha += np.float32(0.5)
        np.clip(alpha, 0, 1, out=alpha)
        self.mix(alpha, value)

    def mix(self, alpha: Plane, value: Plane | float) -> None:
        """Blend a value in by a weight between 0 and 1."""
        alpha *= np.subtract(value, self.image, dtype=np.float32)
        np.add(self.image, alpha, out=self.image)

    @staticmethod
    def _pad(values: Plane) -> float:
        """Half of what a coordinate can change between two searched pixels."""
        if min(values.shape) < 2:
            return float(SEARCH_STRIDE)
        down = float(np.abs(values[1, 0] - values[0, 0]))
        across = float(np.abs(values[0, 1] - values[0, 0]))
        return 1.0 + SEARCH_STRIDE * max(down, across)


def ellipse(a: Plane, b: Plane, radius_a: Plane | float, radius_b: Plane | float) -> Plane:
    """Return the distance (mm, about) to an ellipse's outline, negative inside."""
    q = np.square(a / radius_a) + np.square(b / radius_b)
    radius = np.float32(min(float(np.min(radius_a)), float(np.min(radius_b))))
    return np.asarray((np.sqrt(q) - 1) * radius, np.float32)


def ellipsoid(a: Plane, b: Plane, c: Plane, radii: tuple[float, float, float]) -> Plane:
    """Return the distance (mm, about) to an ellipsoid's surface, negative inside."""
    q = np.square(a * np.float32(1 / radii[0]))
    q += np.square(b * np.float32(1 / radii[1]))
    q += np.square(c * np.float32(1 / radii[2]))
    return np.asarray((np.sqrt(q) - 1) * np.float32(min(radii)), np.float32)


def _between(values: Plane, limits: Range, pad: float) -> np.ndarray:
    return (values > limits[0] - pad) & (values < limits[1] + pad)


def _widen(indices: np.ndarray) -> slice:
    start = max(0, (int(indices[0]) - 1) * SEARCH_STRIDE)
    return slice(start, (int(indices[-1]) + 1) * SEARCH_STRIDE + 1)
