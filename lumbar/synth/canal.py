"""The canal with its sac, and the foramina and recesses beside it: where the findings are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from lumbar.synth.anatomy import (
    FORAMEN_ABOVE_DISC_MM,
    FORAMEN_X_MM,
    RECESS_BELOW_DISC_MM,
    RECESS_X_MM,
    SIDES,
    Phantom,
)
from lumbar.synth.canvas import Canvas, Plane, ellipse, ellipsoid
from lumbar.synth.tissue import Weighting

PROFILE_STEP_MM = 0.5
PROFILE_START_MM = -230.0
PROFILE_SAMPLES = 980

STENOSIS_HALF_LENGTH_MM = 6.5
"""Half the length along the spine over which a stenosis narrows the canal."""


@dataclass(frozen=True)
class Profiles:
    """Shape of column and canal along the spine, one sample every `PROFILE_STEP_MM`."""

    taper: Float32[np.ndarray, " samples"]
    sac_front: Float32[np.ndarray, " samples"]
    sac_back: Float32[np.ndarray, " samples"]
    sac_half_width: Float32[np.ndarray, " samples"]
    loss: Float32[np.ndarray, " samples"]
    ligament: Float32[np.ndarray, " samples"]
    cord_radius: Float32[np.ndarray, " samples"]

    @staticmethod
    def index(s: Plane) -> Int32[np.ndarray, "h w"]:
        """Return the samples nearest to arc lengths."""
        index = ((s - np.float32(PROFILE_START_MM)) * np.float32(1 / PROFILE_STEP_MM)).astype(
            np.int32
        )
        return np.clip(index, 0, PROFILE_SAMPLES - 1, out=index)


def profiles(anatomy: Phantom) -> Profiles:
    """Sample the widths of column and canal of a patient along the spine."""
    s = PROFILE_START_MM + PROFILE_STEP_MM * np.arange(PROFILE_SAMPLES)
    size, depth = anatomy.size, anatomy.canal_depth
    discs = (*anatomy.discs, *anatomy.thoracic_discs)
    sacrum = np.clip((anatomy.discs[-1].s - 6 - s) / (75 * size), 0, 1)
    nearness = sum(_bump(s, disc.s, 9 * size) for disc in discs)
    opening = 1 - sum(
        (1 - disc.canal_opening) * _bump(s, disc.s, STENOSIS_HALF_LENGTH_MM * size)
        for disc in discs
    )
    bulge = sum(disc.bulge * 0.5 * _bump(s, disc.s, 4.0 * size) for disc in discs)
    end = np.clip((s - anatomy.discs[-1].s + 48 * size) / (30 * size), 0.02, 1)
    front = 1.0 + 2.5 * np.clip(sacrum * 4, 0, 1)
    back = depth - 2.0 - 1.0 * nearness - (depth - 6) * 0.6 * sacrum
    closed = (back - front) * (1 - opening * end)
    columns = (
        (1 - 0.06 * (1 - nearness)) * (1 - 0.5 * sacrum),
        front + 0.6 * closed + bulge * opening,
        back - 0.4 * closed,
        size * (10.0 - 1.6 * nearness) * (0.45 + 0.55 * opening * end),
        sum(disc.canal_loss * _bump(s, disc.s, 5.5 * size) for disc in discs),
        sum(_bump(s, disc.s, 8.0 * size) for disc in discs),
        np.clip((s - anatomy.conus_s) / 4 + 0.8, 0.05, 4.3) * size,
    )
    return Profiles(*(np.asarray(column, np.float32) for column in columns))


def paint_canal(spine: Canvas, anatomy: Phantom, contrast: Weighting, along: Profiles) -> None:
    """Paint canal, foramina and recesses over the column and the bones."""
    _paint_sac(spine, anatomy, contrast, along)
    for disc in anatomy.discs:
        for side, foramen, recess in zip(
            SIDES, disc.foramen_openings, disc.recess_openings, strict=True
        ):
            _paint_foramen(spine, anatomy, contrast, s=disc.s, side=side, opening=foramen)
            _paint_recess(spine, anatomy, contrast, s=disc.s, side=side, opening=recess)


def _paint_sac(spine: Canvas, anatomy: Phantom, contrast: Weighting, along: Profiles) -> None:
    """Paint epidural fat and ligament, then the sac with its fluid, cord and roots."""
    size, depth, canal = anatomy.size, anatomy.half_depth, anatomy.canal_depth
    area = spine.window((-14 * size, 14 * size), (-230.0, 240.0), (0.3 * depth, depth + canal + 2))
    if area is None:
        return
    index = along.index(area.s)
    behind = area.n - np.float32(depth) * along.taper[index]
    wall = ellipse(area.x, behind - np.float32(canal / 2), 12.5 * size, canal / 2)
    filling = contrast.fat + along.ligament[index] * np.float32(contrast.annulus - contrast.fat)
    area.paint(wall, filling)
    front, back = along.sac_front[index], along.sac_back[index]
    radius = np.maximum((back - front) / 2, np.float32(0.3))
    q = np.square(area.x / along.sac_half_width[index])
    offset = (behind - (front + back) / 2) / radius
    distance = (np.sqrt(q + np.square(offset)) - 1) * radius
    loss = along.loss[index]
    fluid = contrast.fluid + loss * np.float32(0.9 * contrast.nerve - contrast.fluid)
    # Below the cord the roots lie in the back of the sac and make it greyer there.
    roots = np.clip(offset + 0.35, 0, 0.9) * np.float32(0.55)
    fluid += roots * (np.float32(contrast.nerve) - fluid)
    area.paint(distance, fluid)
    cord = along.cord_radius[index]
    round_ = (np.sqrt(np.square(area.x / 1.2) + np.square(offset * radius - 0.5)) / cord - 1) * cord
    area.paint(np.maximum(round_, distance + 0.8), contrast.nerve)


def _paint_foramen(
    spine: Canvas, anatomy: Phantom, contrast: Weighting, *, s: float, side: int, opening: float
) -> None:
    """Paint fat around the root; the narrower the foramen, the more dark ligament and disc."""
    size = anatomy.size
    at_x, at_s = FORAMEN_X_MM * size, s + FORAMEN_ABOVE_DISC_MM * size
    at_n = anatomy.half_depth + 5.0 * size
    low, high = sorted((side * 11 * size, side * 25 * size))
    area = spine.window((low, high), (at_s - 12 * size, at_s + 12 * size), (at_n - 8, at_n + 8))
    if area is None:
        return
    lateral = np.square((side * area.x - np.float32(at_x)) * np.float32(1 / (6.5 * size)))
    ends = np.square(lateral)
    up, back = area.s - np.float32(at_s), area.n - np.float32(at_n)
    bed = _tube(up, back, ends, (9.8 * size, 6.0 * size))
    area.paint(bed, 0.5 * (contrast.annulus + contrast.cortex))
    scale = float(np.sqrt(opening))
    up = up - np.float32(1.8 * size * (1 - scale))
    fat = _tube(up, back, ends, (9.2 * size * scale, 5.4 * size * scale))
    area.paint(fat, contrast.annulus + (contrast.fat - contrast.annulus) * min(1.0, 0.3 + scale))
    root = _tube(up - np.float32(2.5 * size * scale), back, ends, (2.9 * size, 2.5 * size))
    area.paint(root, contrast.nerve * (0.75 + 0.25 * scale))


def _tube(up: Plane, back: Plane, ends: Plane, radii: tuple[float, float]) -> Plane:
    """Return the approximate distance (mm) to an elliptic tube that closes where `ends` is 1."""
    q = np.square(up * np.float32(1 / radii[0])) + np.square(back * np.float32(1 / radii[1]))
    q += ends
    return np.asarray((np.sqrt(q) - 1) * np.float32(min(radii)), np.float32)


def _paint_recess(
    spine: Canvas, anatomy: Phantom, contrast: Weighting, *, s: float, side: int, opening: float
) -> None:
    """Paint fluid and fat around the descending root, beside the sac at the disc."""
    size = anatomy.size
    at_x, at_s = RECESS_X_MM * size, s - RECESS_BELOW_DISC_MM * size
    at_n = anatomy.half_depth + 4.5 * size
    low, high = sorted((side * 6.5 * size, side * 17 * size))
    area = spine.window((low, high), (at_s - 11 * size, at_s + 11 * size), (at_n - 6, at_n + 6))
    if area is None:
        return
    lateral = side * area.x - np.float32(at_x)
    up, back = area.s - np.float32(at_s), area.n - np.float32(at_n)
    area.paint(
        ellipsoid(lateral, up, back, (4.6 * size, 9.5 * size, 4.6 * size)),
        0.6 * contrast.annulus + 0.4 * contrast.cortex,
    )
    scale = float(np.sqrt(opening))
    bright = ellipsoid(lateral, up, back, (4.1 * size * scale, 9.0 * size, 4.1 * size * scale))
    area.paint(
        bright, contrast.annulus + (contrast.recess - contrast.annulus) * min(1.0, 0.35 + scale)
    )
    root = ellipse(lateral - 0.8 * scale, back - 0.6 * scale, 1.3 * size, 1.3 * size)
    area.paint(np.maximum(root, np.abs(up) - 8 * size), contrast.nerve * 0.9)


def _bump(s: np.ndarray, centre: float, half_length: float) -> np.ndarray:
    """Return a curve with a flat top: 1 at a disc, falling to 0."""
    return np.asarray(np.exp(-(((s - centre) / half_length) ** 4)))
