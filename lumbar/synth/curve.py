"""The lordosis: from patient millimetres to coordinates along the curve of the spine.

Spine coordinates are ``x`` (lateral, patient left positive), ``s`` (arc length along the centres of
the vertebral bodies, superior positive, 0 at the disc L3/L4) and ``n`` (distance posterior of that
curve). In these coordinates the spine is straight, and every structure has a simple formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

TABLE_STEP_MM = 0.25
TABLE_START_MM = -230.0
TABLE_STOP_MM = 260.0
MIN_STRETCH = 0.4
"""The normals of the curve meet behind the back; the search for the foot point stops before."""

Plane = Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class SpineCurve:
    """A planar curve sampled by arc length, every `TABLE_STEP_MM`."""

    y: Float32[np.ndarray, " samples"]
    z: Float32[np.ndarray, " samples"]
    tilt_rad: Float32[np.ndarray, " samples"]
    bend_mm: float
    """Lateral deviation (scoliosis) 100 mm away from L3/L4."""

    @classmethod
    def from_tilts(
        cls,
        s_knots: Float64[np.ndarray, " k"],
        tilts_deg: Float64[np.ndarray, " k"],
        bend_mm: float,
    ) -> SpineCurve:
        """Integrate the curve from its tilt at some ascending arc lengths.

        A positive tilt means that the plane of the disc rises towards posterior, as at L5/S1.
        """
        s = np.arange(TABLE_START_MM, TABLE_STOP_MM, TABLE_STEP_MM)
        tilt = np.deg2rad(np.interp(s, s_knots, tilts_deg))
        y = np.cumsum(-np.sin(tilt)) * TABLE_STEP_MM
        z = np.cumsum(np.cos(tilt)) * TABLE_STEP_MM
        zero = _index(0.0)
        return cls(
            (y - y[zero]).astype(np.float32),
            (z - z[zero]).astype(np.float32),
            tilt.astype(np.float32),
            bend_mm,
        )

    def axes(self, s: float) -> Float64[np.ndarray, "3 3"]:
        """Return the unit axes (lateral, posterior, superior) at an arc length, as rows."""
        tilt = float(self.tilt_rad[_index(s)])
        sin, cos = np.sin(tilt), np.cos(tilt)
        return np.array([[1.0, 0.0, 0.0], [0.0, cos, sin], [0.0, -sin, cos]])

    def to_body(self, x: float, s: float, n: float) -> Float64[np.ndarray, "3"]:
        """Return the point (x, y, z) of spine coordinates in the patient's own frame."""
        index = _index(s)
        origin = np.array([self.bend_mm * (s / 100) ** 2, self.y[index], self.z[index]])
        lateral, posterior, _ = self.axes(s)
        return np.asarray(origin + x * lateral + n * posterior, np.float64)

    def from_body(self, x: Plane, y: Plane, z: Plane) -> tuple[Plane, Plane, Plane]:
        """Return (x, s, n) of points in the patient's own frame: Newton steps on the foot point."""
        sin_table, cos_table = np.sin(self.tilt_rad), np.cos(self.tilt_rad)
        turn_table = np.gradient(self.tilt_rad, np.float32(TABLE_STEP_MM))
        s = z
        for _ in range(3):
            index = ((s - TABLE_START_MM) * (1 / TABLE_STEP_MM)).astype(np.int32)
            np.clip(index, 0, len(self.y) - 1, out=index)
            dy, dz = y - self.y[index], z - self.z[index]
            sin, cos = sin_table[index], cos_table[index]
            n = dy * cos + dz * sin
            stretch = np.maximum(1 + turn_table[index] * n, np.float32(MIN_STRETCH))
            s = index.astype(np.float32) * np.float32(TABLE_STEP_MM) + np.float32(TABLE_START_MM)
            s += (dz * cos - dy * sin) / stretch
        return x - np.float32(self.bend_mm) * (s / np.float32(100)) ** 2, s, n


def _index(s: float) -> int:
    return round((s - TABLE_START_MM) / TABLE_STEP_MM)
