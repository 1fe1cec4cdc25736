"""Discs of axial series from points found in sagittal ones, through the patient's millimetres.

A disc is one place in the patient, whatever series shows it. Its point, found where all five discs
lie in one picture, tells each axial stack the slice that passes nearest. A stack that passes no
nearer than a limit does not show the disc, and nothing is invented for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lumbar.cache.format import HALF_VOXEL, Stack


@dataclass(frozen=True, slots=True)
class Passing:
    """Where one stack passes the five points of a study.

    ``places`` are (d, h, w) in the voxels of the whole series, NaN where the stack does not show
    the level. ``distance_mm`` is from each point to the nearest slice, measured along the slice's
    normal, whether it is within the limit or not.
    """

    stack: Stack
    places: Float64[np.ndarray, "5 3"]
    distance_mm: Float64[np.ndarray, "5"]


def passing(
    points_mm: Float64[np.ndarray, "5 3"],
    stack: Stack,
    shape_hw: tuple[int, int],
    *,
    max_mm: float,
) -> Passing:
    """Return where a stack passes points of the patient, (x, y, z) in millimetres, NaN if unknown.

    A level is in the stack if the nearest slice is at most ``max_mm`` from its point and the point
    lies within that slice's picture of ``shape_hw`` pixels.
    """
    depth = stack.stop - stack.start
    to_voxel = np.linalg.inv(stack.affine)
    voxel = points_mm @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    nearest = np.clip(np.rint(voxel[:, 0]), 0, depth - 1)
    # Slices may be sheared against each other: what is apart is measured along their normal.
    step_mm = 1 / np.linalg.norm(to_voxel[0, :3])
    distance_mm = np.abs(voxel[:, 0] - nearest) * step_mm
    height, width = shape_hw
    in_picture = (
        (voxel[:, 1] >= -HALF_VOXEL)
        & (voxel[:, 1] <= height - HALF_VOXEL)
        & (voxel[:, 2] >= -HALF_VOXEL)
        & (voxel[:, 2] <= width - HALF_VOXEL)
    )
    shown = (distance_mm <= max_mm) & in_picture
    places = np.column_stack([nearest + stack.start, voxel[:, 1:]])
    return Passing(stack, np.where(shown[:, None], places, np.nan), distance_mm)


def nearest_places(
    points_mm: Float64[np.ndarray, "5 3"],
    stacks: Sequence[Stack],
    shape_hw: tuple[int, int],
    *,
    max_mm: float,
) -> Float64[np.ndarray, "5 3"]:
    """Return a series' place for each level: that of the stack that passes nearest, else NaN.

    Where two stacks pass equally near, it is the one that begins first.
    """
    every = [passing(points_mm, stack, shape_hw, max_mm=max_mm) for stack in stacks]
    distance = np.array(
        [np.where(np.isnan(one.places[:, 0]), np.inf, one.distance_mm) for one in every]
    )
    best = distance.argmin(axis=0)
    places = np.array([one.places for one in every])
    chosen: Float64[np.ndarray, "5 3"] = places[best, np.arange(places.shape[1])]
    return chosen
