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

from lumbar.pipeline.header import SliceHeader


class Plane(StrEnum):
    """The three planes; the order breaks ties."""

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


@dataclass(frozen=True, slots=True)
class InPlane:
    """How a picture ``(row, column)`` is turned to ``(h, w)``: exchange first, then reversals."""

    exchange: bool
    reverse_h: bool
    reverse_w: bool


@dataclass(frozen=True, slots=True)
class OrientedSlice:
    """Where a turned slice lies: ``origin_lps`` is voxel (0, 0); the steps are one voxel long.

    ``source_to_hw`` maps a column ``(x, y, 1)`` (column, row of the original) to ``(h, w)``.
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
    return np.array(
        [b * f - c * e, c * d - a * f, a * e - b * d]
    )  # np.cross takes 50 times as long


def nearest_plane(header: SliceHeader) -> Plane:
    """Return the plane whose normal is nearest to a slice's."""
    normal = normal_of(header)
    return max(Plane, key=lambda plane: abs(float(normal @ CANONICAL_AXES[plane][0])))


def slice_axis(header: SliceHeader, plane: Plane) -> Float[np.ndarray, "3"]:
    """Return the normal of a slice, pointing the way in which D grows."""
    normal = normal_of(header)
    return -normal if normal @ CANONICAL_AXES[plane][0] < 0 else normal


def choose_in_plane(header: SliceHeader, plane: Plane) -> InPlane:
    """Return the exchange and reversals that bring a slice nearest to the canonical axes."""
    _, h_axis, w_axis = CANONICAL_AXES[plane]
    down, along = np.array(header.column_direction), np.array(header.row_direction)
    kept = abs(down @ h_axis) + abs(along @ w_axis)
    exchanged = abs(along @ h_axis) + abs(down @ w_axis)
    if exchanged > kept:
        down, along = along, down
    return InPlane(bool(exchanged > kept), bool(down @ h_axis < 0), bool(along @ w_axis < 0))


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


def orient_all(headers: Sequence[SliceHeader], plane: Plane) -> list[OrientedSlice]:
    """Return where the slices of a series lie after each is turned to the canonical axes."""
    return [orient(header, choose_in_plane(header, plane)) for header in headers]
