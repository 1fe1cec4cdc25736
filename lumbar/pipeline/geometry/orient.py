"""Canonical orientation: axes are exchanged and reversed, never rotated; oblique stays oblique.

Patient coordinates are DICOM's LPS: +x patient left, +y posterior, +z superior. The slice axis is
always D; the two axes of the picture become H and W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from lumbar.pipeline.dicom.header import SliceHeader


class Plane(StrEnum):
    """The three planes; of two equally near ones the first is taken."""

    SAGITTAL = "sagittal"
    AXIAL = "axial"
    CORONAL = "coronal"


RIGHT_TO_LEFT = (1.0, 0.0, 0.0)
ANTERIOR_TO_POSTERIOR = (0.0, 1.0, 0.0)
SUPERIOR_TO_INFERIOR = (0.0, 0.0, -1.0)

CANONICAL_AXES: dict[Plane, Float[np.ndarray, "dhw xyz"]] = {
    Plane.SAGITTAL: np.array([RIGHT_TO_LEFT, SUPERIOR_TO_INFERIOR, ANTERIOR_TO_POSTERIOR]),
    Plane.AXIAL: np.array([SUPERIOR_TO_INFERIOR, ANTERIOR_TO_POSTERIOR, RIGHT_TO_LEFT]),
    Plane.CORONAL: np.array([ANTERIOR_TO_POSTERIOR, SUPERIOR_TO_INFERIOR, RIGHT_TO_LEFT]),
}
"""The directions in which D, H and W grow."""


TIE_DECIMALS = 6
"""Cosines that agree in these decimals are equal: headers are rounded to six or more."""

POSITION_TOLERANCE_MM = 0.1
"""Centres nearer than this have one position: a tenth of the thinnest slices in use."""

CLEAR_MARGIN = 0.25
"""Below this difference between two ways to turn a picture the rest of its series decides: that is
within 5 degrees of a picture rotated by 45."""


@dataclass(frozen=True, slots=True)
class InPlane:
    """How a picture ``(row, column)`` becomes ``(h, w)``: first exchange, then reversals."""

    exchange: bool
    reverse_h: bool
    reverse_w: bool


@dataclass(frozen=True, slots=True)
class OrientedSlice:
    """Where a turned slice lies: ``origin_lps`` is voxel (0, 0); the steps are one voxel long.

    ``source_to_hw`` maps ``(x, y, 1)``, column and row of the original, to ``(h, w)``.
    """

    in_plane: InPlane
    height: int
    width: int
    origin_lps: Float[np.ndarray, "3"]
    h_step_lps: Float[np.ndarray, "3"]
    w_step_lps: Float[np.ndarray, "3"]
    source_to_hw: Float[np.ndarray, "2 3"]


def normal_of(header: SliceHeader) -> Float[np.ndarray, "3"]:
    """Return the unit normal of a slice, row direction x column direction."""
    (a, b, c), (d, e, f) = header.row_direction, header.column_direction
    # np.cross takes 50 times as long.
    return np.array([b * f - c * e, c * d - a * f, a * e - b * d])


def centre_of(header: SliceHeader) -> Float[np.ndarray, "3"]:
    """Return the centre of a slice in patient millimetres."""
    return (
        np.array(header.position_lps)
        + np.array(header.row_direction) * (header.column_spacing_mm * (header.columns - 1) / 2)
        + np.array(header.column_direction) * (header.row_spacing_mm * (header.rows - 1) / 2)
    )


def nearest_plane(header: SliceHeader) -> Plane:
    """Return the plane whose normal is nearest to a slice's; the first of equally near ones."""
    normal = normal_of(header)
    return max(
        Plane,
        key=lambda plane: round(abs(float(normal @ CANONICAL_AXES[plane][0])), TIE_DECIMALS),
    )


def slice_axis(header: SliceHeader, plane: Plane) -> Float[np.ndarray, "3"]:
    """Return the normal of a slice in the direction in which D grows."""
    normal = normal_of(header)
    return -normal if normal @ CANONICAL_AXES[plane][0] < 0 else normal


def choose_in_plane(header: SliceHeader, plane: Plane) -> InPlane:
    """Return the exchange and reversals that bring a slice nearest to the canonical axes."""
    _, h_axis, w_axis = CANONICAL_AXES[plane]
    return _nearest_way(header, h_axis, w_axis)[0]


def choose_in_planes(
    headers: Sequence[SliceHeader], weights: Sequence[int], plane: Plane
) -> list[InPlane]:
    """Return how the pictures of each orientation of a series are turned, all the same way.

    ``headers`` has one per orientation, ``weights`` its number of slices. A picture that is nearly
    half way between two ways is turned like the rest of the series.
    """
    _, h_axis, w_axis = CANONICAL_AXES[plane]
    ways = [_nearest_way(header, h_axis, w_axis) for header in headers]
    clear = [number for number, (_, margin) in enumerate(ways) if margin >= CLEAR_MARGIN]
    if len(clear) == len(headers) or len(headers) == 1:
        return [in_plane for in_plane, _ in ways]
    heaviest = max(range(len(headers)), key=lambda number: weights[number])
    leaders = clear or [heaviest]
    steps = [orient(headers[number], ways[number][0]) for number in leaders]
    shares = np.array([weights[number] for number in leaders], float)[:, None]
    h_mean = (np.array([_unit(step.h_step_lps) for step in steps]) * shares).sum(axis=0)
    w_mean = (np.array([_unit(step.w_step_lps) for step in steps]) * shares).sum(axis=0)
    return [
        in_plane if number in leaders else _nearest_way(header, _unit(h_mean), _unit(w_mean))[0]
        for number, (header, (in_plane, _)) in enumerate(zip(headers, ways, strict=True))
    ]


def _nearest_way(
    header: SliceHeader, h_axis: Float[np.ndarray, "3"], w_axis: Float[np.ndarray, "3"]
) -> tuple[InPlane, float]:
    """Return how a picture comes nearest to two axes, and by what margin."""
    down, along = np.array(header.column_direction), np.array(header.row_direction)
    kept = abs(down @ h_axis) + abs(along @ w_axis)
    exchanged = abs(along @ h_axis) + abs(down @ w_axis)
    margin = round(float(exchanged - kept), TIE_DECIMALS)
    if margin > 0:
        down, along = along, down
    return InPlane(margin > 0, bool(down @ h_axis < 0), bool(along @ w_axis < 0)), abs(margin)


def _unit(step: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    unit: Float[np.ndarray, "3"] = step / np.linalg.norm(step)
    return unit


def orient(header: SliceHeader, in_plane: InPlane) -> OrientedSlice:
    """Return where a slice lies after it is turned."""
    h_step = np.array(header.column_direction) * header.row_spacing_mm
    w_step = np.array(header.row_direction) * header.column_spacing_mm
    height, width = header.rows, header.columns
    matrix = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    origin = np.array(header.position_lps)
    if in_plane.exchange:
        h_step, w_step = w_step, h_step
        height, width = width, height
        matrix = matrix[::-1].copy()
    if in_plane.reverse_h:
        origin = origin + h_step * (height - 1)
        h_step = -h_step
        matrix[0] = [0, 0, height - 1] - matrix[0]
    if in_plane.reverse_w:
        origin = origin + w_step * (width - 1)
        w_step = -w_step
        matrix[1] = [0, 0, width - 1] - matrix[1]
    return OrientedSlice(in_plane, height, width, origin, h_step, w_step, matrix)


def turn(picture: Shaped[np.ndarray, "rows columns"], in_plane: InPlane) -> Any:
    """Return a view of a picture as ``(h, w)``."""
    turned = picture.T if in_plane.exchange else picture
    if in_plane.reverse_h:
        turned = turned[::-1]
    return turned[:, ::-1] if in_plane.reverse_w else turned
