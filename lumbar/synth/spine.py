"""The bones and discs of the spine, painted from back to front."""

from __future__ import annotations

import itertools

import numpy as np

from lumbar.synth.anatomy import SIDES, Disc, Phantom
from lumbar.synth.canal import Profiles, paint_canal
from lumbar.synth.canvas import Canvas, Range, ellipse, ellipsoid
from lumbar.synth.tissue import Weighting


def spine_box(anatomy: Phantom) -> tuple[Range, Range, Range]:
    """Return the range in x, s and n of all that `paint_spine` paints."""
    size, depth = anatomy.size, anatomy.half_depth
    return (-30 * size, 30 * size), (-230.0, 240.0), (-1.4 * depth, depth + 52 * size)


def paint_spine(spine: Canvas, anatomy: Phantom, contrast: Weighting, along: Profiles) -> None:
    """Paint the column with its discs and the canal with its exits over the soft tissue."""
    marrow = contrast.marrow + anatomy.marrow_fat
    vertebrae = _vertebra_middles(anatomy)
    for middle in vertebrae:
        _paint_arch(spine, anatomy, contrast, middle, marrow)
    for disc in anatomy.discs:
        _paint_facets(spine, anatomy, contrast, disc, marrow)
    _paint_column(spine, anatomy, contrast, along, marrow)
    for middle in vertebrae:
        _paint_pedicles(spine, anatomy, contrast, middle, marrow)
    paint_canal(spine, anatomy, contrast, along)


def _vertebra_middles(anatomy: Phantom) -> list[float]:
    levels = sorted(disc.s for disc in (*anatomy.discs, *anatomy.thoracic_discs))
    middles = [(low + high) / 2 for low, high in itertools.pairwise(levels)]
    return [levels[0] - 17 * anatomy.size, *middles]


def _paint_arch(
    spine: Canvas, anatomy: Phantom, contrast: Weighting, middle: float, marrow: float
) -> None:
    """Paint lamina and spinous process of one vertebra: marrow in a dark cortex."""
    size, start = anatomy.size, anatomy.half_depth + anatomy.canal_depth
    area = spine.window(
        (-17 * size, 17 * size), (middle - 24 * size, middle + 8 * size), (start - 6, start + 36)
    )
    if area is None:
        return
    behind = area.n - np.float32(start)
    down = area.s - np.float32(middle - 6 * size) + 0.22 * behind
    process = np.maximum(
        np.maximum(np.abs(area.x) - 3.2 * size, np.abs(down) - 9.0 * size),
        np.abs(behind - 15 * size) - 15 * size,
    )
    lamina = np.maximum(
        np.abs(behind - 4.5 * size + 0.45 * np.abs(area.x)) - 2.6 * size,
        np.maximum(np.abs(area.x) - 14 * size, np.abs(down) - 8.5 * size),
    )
    bone = np.minimum(process, lamina)
    area.paint(bone - 1.3, contrast.cortex)
    area.paint(bone, marrow * 1.05)


def _paint_facets(
    spine: Canvas, anatomy: Phantom, contrast: Weighting, disc: Disc, marrow: float
) -> None:
    size, centre = anatomy.size, anatomy.half_depth + 19 * anatomy.size
    for side in SIDES:
        low, high = sorted((side * 8 * size, side * 28 * size))
        area = spine.window(
            (low, high), (disc.s - 12 * size, disc.s + 12 * size), (centre - 9, centre + 9)
        )
        if area is None:
            continue
        x, n = side * area.x - np.float32(18 * size), area.n - np.float32(centre)
        bone = ellipsoid(x, area.s - np.float32(disc.s), n, (7.5 * size, 10.0 * size, 6.5 * size))
        area.paint(bone - 1.2, contrast.cortex)
        area.paint(bone, marrow)
        joint = np.abs(x + 0.55 * n) - 0.9
        area.paint(np.maximum(joint, bone), contrast.cortex)


def _paint_column(
    spine: Canvas, anatomy: Phantom, contrast: Weighting, along: Profiles, marrow: float
) -> None:
    depth, width = anatomy.half_depth, anatomy.half_width
    area = spine.window((-width, width), (-230.0, 240.0), (-1.3 * depth, 1.1 * depth))
    if area is None:
        return
    taper = along.taper[along.index(area.s)]
    wall = np.float32(depth) * taper
    bodies = np.maximum(ellipse(area.x, area.n, width * taper, 1.12 * wall), area.n - wall)
    area.paint(bodies - 1.2, contrast.cortex)
    area.paint(bodies, marrow)
    x, s, radius = anatomy.bright_vertebra
    if radius:
        spot = ellipsoid(area.x - np.float32(x), area.s - np.float32(s), area.n, (radius,) * 3)
        area.paint(
            np.maximum(spot, bodies + 1), 0.4 * marrow + 0.6 * max(contrast.fat, marrow), 3.0
        )
    for disc in (*anatomy.discs, *anatomy.thoracic_discs):
        _paint_disc(area, anatomy, contrast, disc)
    remnant = np.abs(area.s - np.float32(anatomy.discs[-1].s - 33 * anatomy.size)) - 0.8
    area.paint(np.maximum(remnant, bodies), contrast.annulus)


def _paint_disc(column: Canvas, anatomy: Phantom, contrast: Weighting, disc: Disc) -> None:
    """Paint two dark endplates, a dark annulus, and a nucleus that is bright if it is young."""
    depth, width = anatomy.half_depth, anatomy.half_width
    area = column.window(
        (-width - 3, width + 3),
        (disc.s - disc.height, disc.s + disc.height),
        (-1.4 * depth, depth + 4),
    )
    if area is None:
        return
    outline = ellipse(area.x, area.n, width + 0.5, 1.12 * depth + 0.5)
    outline = np.maximum(outline, area.n - np.float32(depth + disc.bulge))
    half = np.float32(disc.height / 2) * (1 - 0.2 * area.n / np.float32(depth))
    half *= 1 - 0.18 * np.square(area.x / np.float32(width))
    slab = np.abs(area.s - np.float32(disc.s)) - half
    area.paint(np.maximum(slab - 1.2, outline), contrast.cortex)
    area.paint(np.maximum(slab, outline - 0.6), contrast.annulus)
    nucleus = contrast.annulus + disc.nucleus * (contrast.nucleus - contrast.annulus)
    area.paint(np.maximum(slab + 1.2, outline + 0.32 * depth), nucleus, 3.0)


def _paint_pedicles(
    spine: Canvas, anatomy: Phantom, contrast: Weighting, middle: float, marrow: float
) -> None:
    size, depth = anatomy.size, anatomy.half_depth
    for side in SIDES:
        low, high = sorted((side * 8 * size, side * 22 * size))
        area = spine.window(
            (low, high), (middle - 6 * size, middle + 13 * size), (depth - 5, depth + 16)
        )
        if area is None:
            continue
        round_ = ellipse(
            side * area.x - np.float32(15.5 * size),
            area.s - np.float32(middle + 4 * size),
            4.6 * size,
            7.0 * size,
        )
        bone = np.maximum(round_, np.abs(area.n - np.float32(depth + 5.5)) - 8.5 * size)
        area.paint(bone - 1.2, contrast.cortex)
        area.paint(bone, marrow)
