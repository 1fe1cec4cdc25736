"""The in-plane grid: one canvas for all slices of a series, and where each slice lies on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import cv2
import numpy as np
from jaxtyping import Float, Float32

from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.dicom.header import MAX_PIXELS
from lumbar.pipeline.geometry.orient import OrientedSlice
from lumbar.pipeline.reject import Reason, RejectedError


@dataclass(frozen=True, slots=True)
class Placed:
    """An oriented slice on the canvas.

    It is scaled to ``height`` x ``width`` pixels, the first of which lies at ``top``, ``left`` of
    the canvas. These are negative if the canvas is smaller and the slice is cropped. The steps and
    the origin are those of the canvas.
    """

    oriented: OrientedSlice
    height: int
    width: int
    top: int
    left: int

    @property
    def zoom_hw(self) -> tuple[float, float]:
        """Original pixels per canvas pixel."""
        return self.oriented.height / self.height, self.oriented.width / self.width

    @property
    def h_step_lps(self) -> Float[np.ndarray, "3"]:
        """Millimetres from a canvas pixel to the next one below."""
        step_lps: Float[np.ndarray, "3"] = self.oriented.h_step_lps * self.zoom_hw[0]
        return step_lps

    @property
    def w_step_lps(self) -> Float[np.ndarray, "3"]:
        """Millimetres from a canvas pixel to the next one to the right."""
        step_lps: Float[np.ndarray, "3"] = self.oriented.w_step_lps * self.zoom_hw[1]
        return step_lps

    @property
    def origin_lps(self) -> Float[np.ndarray, "3"]:
        """Where pixel (0, 0) of the canvas lies in the patient."""
        zoom_h, zoom_w = self.zoom_hw
        h = (0.5 - self.top) * zoom_h - 0.5
        w = (0.5 - self.left) * zoom_w - 0.5
        first = self.oriented
        origin_lps: Float[np.ndarray, "3"] = (
            first.origin_lps + first.h_step_lps * h + first.w_step_lps * w
        )
        return origin_lps

    @property
    def source_to_canvas(self) -> Float[np.ndarray, "2 3"]:
        """Map ``(x, y, 1)`` of the original picture to ``(h, w)`` of the canvas."""
        zoom_h, zoom_w = self.zoom_hw
        matrix: Float[np.ndarray, "2 3"] = self.oriented.source_to_hw / np.array(
            [[zoom_h], [zoom_w]]
        )
        matrix[:, 2] += [0.5 / zoom_h - 0.5 + self.top, 0.5 / zoom_w - 0.5 + self.left]
        return matrix


def place(
    slices: Sequence[OrientedSlice], config: PreprocessConfig
) -> tuple[tuple[int, int], list[Placed]]:
    """Return the canvas's height and width and where each slice lies on it.

    ``fit`` and ``spacing`` give all slices of a series one pixel size, exact up to the rounding of
    a slice's height and width to whole pixels.

    Raises
    ------
    RejectedError
        If the spacing would make a picture of more than `MAX_PIXELS` pixels.
    """
    match config.grid:
        case "native":
            sizes = [(one.height, one.width) for one in slices]
            canvas = max(height for height, _ in sizes), max(width for _, width in sizes)
        case "fit" | "spacing":
            fields_mm = [_field_mm(one) for one in slices]
            pixel_mm = config.spacing_mm or max(map(max, fields_mm)) / config.size
            sizes = [
                (max(1, round(height / pixel_mm)), max(1, round(width / pixel_mm)))
                for height, width in fields_mm
            ]
            canvas = config.size, config.size
        case _:
            assert_never(config.grid)
    _check_size(sizes, canvas, len(slices))
    placed = [
        Placed(one, height, width, (canvas[0] - height) // 2, (canvas[1] - width) // 2)
        for one, (height, width) in zip(slices, sizes, strict=True)
    ]
    return canvas, placed


def resample(picture_hw: Float32[np.ndarray, "h w"], placed: Placed) -> Float32[np.ndarray, "H W"]:
    """Scale an oriented picture: area average to shrink, linear interpolation to enlarge."""
    height, width = picture_hw.shape
    shrunk = min(height, placed.height), min(width, placed.width)
    if shrunk != (height, width):
        picture_hw = cv2.resize(picture_hw, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != (placed.height, placed.width):
        picture_hw = cv2.resize(
            picture_hw, (placed.width, placed.height), interpolation=cv2.INTER_LINEAR
        )
    return picture_hw


def windows(
    placed: Placed, canvas: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of the canvas that a slice covers, and the visible part of the slice."""
    rows = _overlap(placed.top, placed.height, canvas[0])
    columns = _overlap(placed.left, placed.width, canvas[1])
    return (rows[0], columns[0]), (rows[1], columns[1])


def _overlap(start: int, length: int, canvas: int) -> tuple[slice, slice]:
    first, last = max(start, 0), min(start + length, canvas)
    return slice(first, last), slice(first - start, last - start)


def _field_mm(one: OrientedSlice) -> tuple[float, float]:
    """Return the height and width of the field of view in millimetres."""
    return (
        float(np.linalg.norm(one.h_step_lps)) * one.height,
        float(np.linalg.norm(one.w_step_lps)) * one.width,
    )


def _check_size(sizes: Sequence[tuple[int, int]], canvas: tuple[int, int], depth: int) -> None:
    largest = max(height * width for height, width in sizes)
    if max(largest, canvas[0] * canvas[1] * depth) > MAX_PIXELS:
        raise RejectedError(
            Reason.TOO_LARGE, f"{depth} slices on a canvas of {canvas}, pictures of {max(sizes)}"
        )
