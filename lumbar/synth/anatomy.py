"""One patient's anatomy as numbers in millimetres, in spine coordinates (x, s, n).

See `lumbar.synth.curve` for the coordinates. All other random numbers are independent of the
severities, so two patients with one grade different differ only in that finding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lumbar.cache.names import CONDITIONS, LEVELS
from lumbar.synth.curve import SpineCurve
from lumbar.synth.severity import Grades

CANAL_OPENING = ((1.0, 0.05), (0.55, 0.035), (0.20, 0.035))
"""Mean and spread of the antero-posterior diameter left at a disc, by severity."""

FORAMEN_OPENING = ((1.0, 0.07), (0.50, 0.05), (0.10, 0.03))
"""Mean and spread of the area of fat left in a foramen, by severity."""

RECESS_OPENING = ((1.0, 0.08), (0.48, 0.05), (0.08, 0.03))
"""Mean and spread of the area of fluid and fat left in a lateral recess, by severity."""

DISC_HEIGHTS_MM = (8.0, 9.0, 10.0, 10.8, 9.8)
DISC_PITCH_MM = (33.5, 34.5, 35.0, 34.0)
"""From each disc to the next one below, along the curve; adult means."""

THORACIC_PITCH_MM = 31.0

TILTS_DEG = (-13.0, -7.0, 0.0, 10.0, 25.0)
"""Tilt of each disc's plane; positive rises towards posterior."""

CANAL_DEPTH_MM = 15.5
FORAMEN_X_MM = 18.0
FORAMEN_ABOVE_DISC_MM = 4.5
RECESS_X_MM = 11.8
RECESS_BELOW_DISC_MM = 1.5

MIDDLE_LEVEL = 2
SIDES = (1, -1)
"""Sign of x of the sides, left then right, in the order of the conditions."""


@dataclass(frozen=True)
class Disc:
    """A disc, and how open the canal, the foramina and the recesses beside it are."""

    s: float
    height: float
    nucleus: float
    """Fluid in the nucleus: 1 is young and bright on T2, 0 is dark."""
    bulge: float
    canal_opening: float
    canal_loss: float
    """Share of fluid lost from the canal: 0 is bright, 1 is dark."""
    foramen_openings: tuple[float, float]
    """Left, right."""
    recess_openings: tuple[float, float]
    """Left, right."""


@dataclass(frozen=True)
class Phantom:
    """A patient: discs, sizes of the other structures, and the pose on the scanner's table."""

    discs: tuple[Disc, ...]
    """The five lumbar discs, from L1/L2 to L5/S1."""
    thoracic_discs: tuple[Disc, ...]
    """The discs above them, from the lowest up; the canal is never narrow there."""
    curve: SpineCurve
    half_depth: float
    half_width: float
    canal_depth: float
    size: float
    skin_n: float
    muscle_fat: float
    """Share of fat in the muscles, 0 to 1."""
    marrow_fat: float
    conus_s: float
    bright_vertebra: tuple[float, float, float]
    """(x, s, radius) of a haemangioma; a radius of 0 is none."""
    rotation: Float64[np.ndarray, "3 3"]
    """From the patient's own frame to LPS."""
    shift: Float64[np.ndarray, "3"]

    def to_lps(self, x: float, s: float, n: float) -> Float64[np.ndarray, "3"]:
        """Return the position in LPS millimetres of a point in spine coordinates."""
        return np.asarray(self.rotation @ self.curve.to_body(x, s, n) + self.shift, np.float64)

    def axes_lps(self, s: float) -> Float64[np.ndarray, "3 3"]:
        """Return the unit axes (lateral, posterior, superior) at an arc length, as rows in LPS."""
        return np.asarray(self.curve.axes(s) @ self.rotation.T, np.float64)

    def landmark(self, condition: int, level: int) -> Float64[np.ndarray, "3"]:
        """Return where a condition is annotated at a level, in LPS millimetres."""
        disc = self.discs[level]
        if condition == 0:
            return self.to_lps(0.0, disc.s, self.half_depth + 0.4 * self.canal_depth)
        side = SIDES[(condition - 1) % 2]
        if CONDITIONS[condition].endswith("foraminal_narrowing"):
            return self.to_lps(
                side * FORAMEN_X_MM * self.size,
                disc.s + FORAMEN_ABOVE_DISC_MM * self.size,
                self.half_depth + 5.0 * self.size,
            )
        return self.to_lps(
            side * RECESS_X_MM * self.size,
            disc.s - RECESS_BELOW_DISC_MM * self.size,
            self.half_depth + 4.5 * self.size,
        )


def sample_anatomy(rng: np.random.Generator, grades: Grades) -> Phantom:
    """Sample a patient whose findings have the given severities."""
    size = float(np.clip(rng.normal(1.0, 0.05), 0.87, 1.13))
    discs = _sample_discs(rng, grades, size)
    return Phantom(
        discs=discs,
        thoracic_discs=_sample_thoracic_discs(rng, discs[0].s, size),
        curve=_sample_curve(rng, discs),
        half_depth=17.0 * size * rng.uniform(0.95, 1.05),
        half_width=23.5 * size * rng.uniform(0.95, 1.05),
        canal_depth=CANAL_DEPTH_MM * size * rng.uniform(0.94, 1.06),
        size=size,
        skin_n=rng.uniform(72.0, 92.0) * size,
        muscle_fat=rng.uniform(0.0, 0.45),
        marrow_fat=rng.uniform(-0.08, 0.12),
        conus_s=(discs[0].s + rng.normal(6.0, 7.0)),
        bright_vertebra=(
            rng.uniform(-10, 10),
            discs[int(rng.integers(4))].s - rng.uniform(14, 20),
            rng.uniform(4, 8) * float(rng.random() < 0.15),
        ),
        rotation=rotation_matrix(*np.deg2rad(rng.normal(0, [2.0, 1.5, 2.0]))),
        shift=rng.normal([0.0, 0.0, 0.0], [6.0, 10.0, 15.0]),
    )


def rotation_matrix(about_x: float, about_y: float, about_z: float) -> Float64[np.ndarray, "3 3"]:
    """Return the rotation about x, then y, then z, by angles in radians."""
    angles = np.array([about_x, about_y, about_z])
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx, np.float64)


def _sample_discs(rng: np.random.Generator, grades: Grades, size: float) -> tuple[Disc, ...]:
    pitches = np.array(DISC_PITCH_MM) * size * rng.uniform(0.96, 1.04, 4)
    s = np.concatenate([[0.0], -np.cumsum(pitches)])
    s -= s[MIDDLE_LEVEL]
    wear = np.clip(rng.normal([0.15, 0.2, 0.3, 0.45, 0.45], 0.28), 0, 1)
    heights = np.array(DISC_HEIGHTS_MM) * size * (1 - 0.3 * wear) * rng.uniform(0.9, 1.1, 5)
    bulges = np.clip(rng.normal(0.6 + 1.0 * wear, 0.5), 0, 2.2)
    spread = np.clip(rng.standard_normal((len(CONDITIONS), len(LEVELS))), -2, 2)
    return tuple(
        Disc(
            s=float(s[level]),
            height=float(heights[level]),
            nucleus=float(1 - wear[level]),
            bulge=float(bulges[level]),
            canal_opening=_opening(CANAL_OPENING, grades, spread, 0, level),
            canal_loss=(0.0, 0.25, 0.9)[grades[0, level]],
            foramen_openings=(
                _opening(FORAMEN_OPENING, grades, spread, 1, level),
                _opening(FORAMEN_OPENING, grades, spread, 2, level),
            ),
            recess_openings=(
                _opening(RECESS_OPENING, grades, spread, 3, level),
                _opening(RECESS_OPENING, grades, spread, 4, level),
            ),
        )
        for level in range(len(LEVELS))
    )


def _sample_thoracic_discs(rng: np.random.Generator, s: float, size: float) -> tuple[Disc, ...]:
    return tuple(
        Disc(
            s=s + THORACIC_PITCH_MM * size * (index + 1),
            height=6.5 * size,
            nucleus=rng.uniform(0.4, 1.0),
            bulge=0.0,
            canal_opening=1.0,
            canal_loss=0.0,
            foramen_openings=(1.0, 1.0),
            recess_openings=(1.0, 1.0),
        )
        for index in range(4)
    )


def _opening(
    table: tuple[tuple[float, float], ...],
    grades: Grades,
    spread: Float64[np.ndarray, "5 5"],
    condition: int,
    level: int,
) -> float:
    mean, deviation = table[grades[condition, level]]
    return float(mean + deviation * spread[condition, level])


def _sample_curve(rng: np.random.Generator, discs: tuple[Disc, ...]) -> SpineCurve:
    lordosis = rng.uniform(0.75, 1.15)
    tilts = np.array(TILTS_DEG) * lordosis + rng.normal(0, 1.2, 5)
    knots = np.array([disc.s for disc in discs])
    s_knots = np.concatenate([[knots[0] + 90, knots[0] + 35], knots, [knots[-1] - 35]])
    tilts_deg = np.concatenate([[-6.0, -14.0 * lordosis], tilts, [46.0 * lordosis]])
    order = np.argsort(s_knots)
    return SpineCurve.from_tilts(s_knots[order], tilts_deg[order], rng.normal(0, 1.5))
