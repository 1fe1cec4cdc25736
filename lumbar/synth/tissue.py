"""The signal of each tissue in each weighting, and the soft tissue around the spine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lumbar.synth.anatomy import Phantom
from lumbar.synth.canvas import Canvas, Plane, ellipse

EDGE_MM = 3.0
"""Soft tissue is painted on a coarse grid, so its edges are wide."""

FOLLOWS_LORDOSIS = 0.35


@dataclass(frozen=True)
class Weighting:
    """Relative signal of the tissues in one weighting; 1 is the brightest."""

    fat: float
    muscle: float
    viscera: float
    marrow: float
    cortex: float
    nucleus: float
    annulus: float
    fluid: float
    nerve: float
    vessel: float
    recess: float

    def scaled(self, fat: float, muscle: float, marrow: float, fluid: float) -> Weighting:
        """Return this weighting with some signals scaled: scanners and patients differ."""
        return replace(
            self,
            fat=self.fat * fat,
            muscle=self.muscle * muscle,
            marrow=self.marrow * marrow,
            fluid=self.fluid * fluid,
        )


T1 = Weighting(
    fat=0.95, muscle=0.34, viscera=0.38, marrow=0.50, cortex=0.08, nucleus=0.36, annulus=0.30,
    fluid=0.18, nerve=0.36, vessel=0.07, recess=0.50,
)  # fmt: skip
T2 = Weighting(
    fat=0.70, muscle=0.20, viscera=0.42, marrow=0.38, cortex=0.06, nucleus=0.72, annulus=0.17,
    fluid=1.00, nerve=0.40, vessel=0.05, recess=0.88,
)  # fmt: skip
STIR = replace(T2, fat=0.13, muscle=0.24, marrow=0.20, nucleus=0.66, recess=0.80)


def paint_soft_tissue(canvas: Canvas, anatomy: Phantom, contrast: Weighting, y: Plane) -> None:
    """Paint everything around the spine: fat, viscera, muscles, vessels.

    `y` is the position of each pixel in the patient's own frame.
    """
    # The skin and the belly follow only part of the lordosis.
    outer = FOLLOWS_LORDOSIS * canvas.n + (1 - FOLLOWS_LORDOSIS) * y
    x, s, n = canvas.x, canvas.s, canvas.n
    size, depth = anatomy.size, anatomy.half_depth
    muscle = contrast.muscle + anatomy.muscle_fat * 0.5 * (contrast.fat - contrast.muscle)
    lateral = np.abs(x)
    behind = n - depth
    trunk = ellipse(x, outer + 25, 165 * size, anatomy.skin_n + 25)
    canvas.paint(trunk, contrast.fat, EDGE_MM)
    canvas.paint(
        np.maximum(trunk + 18 * size, outer + depth + 22 * size), contrast.viscera, 2 * EDGE_MM
    )
    within = trunk + 4 * size
    erector = ellipse(lateral - 36 * size, behind - 36, 27 * size, 20 * size)
    multifidus = ellipse(lateral - 14 * size, behind - 32, 11 * size, 14 * size)
    canvas.paint(np.maximum(np.minimum(erector, multifidus), within), muscle, EDGE_MM)
    psoas = (13.0 - 0.05 * np.clip(s, -110, 60)) * np.float32(size)
    canvas.paint(
        ellipse(lateral - anatomy.half_width - 0.85 * psoas, n + 1, psoas, psoas * 1.15),
        contrast.muscle,
        EDGE_MM,
    )
    canvas.paint(ellipse(lateral - 72 * size, behind - 6, 19 * size, 9 * size), muscle, EDGE_MM)
    above_fork = anatomy.discs[3].s + 10 - s
    for at, radius in ((9.0, 8.5), (-14.0, 9.5)):
        vessel = ellipse(x - at * size, n + depth + 13 * size, radius * size, radius * 0.9 * size)
        canvas.paint(np.maximum(vessel, above_fork), contrast.vessel, EDGE_MM)
