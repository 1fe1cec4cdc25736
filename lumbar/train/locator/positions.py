"""Places of discs: from annotated points, between crop and volume, and in patient millimetres.

A place is (d, h, w) in the voxels of the cached array; a series has five, NaN where unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from lumbar.cache.errors import InputError
from lumbar.cache.names import LEVELS
from lumbar.cache.store import Cache
from lumbar.train.plan.samples import Samples, several_stacks

Places = Float64[np.ndarray, "n 5 3"]


@dataclass(frozen=True, slots=True)
class PlaceError:
    """Distance between located and annotated discs, in patient millimetres."""

    discs: int
    median_mm: float
    p95_mm: float


def annotated_places(cache: Cache, rows: Sequence[int]) -> Places:
    """Return the annotated places of the discs of some series; NaN where there are no points."""
    discs = Samples.of_discs(cache, sorted(set(rows)))
    of_row = {row: np.full((len(LEVELS), 3), np.nan) for row in rows}
    for row, level, centre in zip(
        discs.row[:, 0], discs.level, discs.centre_dhw[:, 0], strict=True
    ):
        of_row[int(row)][level] = centre
    return np.array([of_row[row] for row in rows]).reshape(-1, len(LEVELS), 3)


def place_error(cache: Cache, rows: Sequence[int], places: Places) -> PlaceError | None:
    """Compare places with the annotated ones; None where no disc of these series has points."""
    annotated = annotated_places(cache, rows)
    known = ~np.isnan(annotated).any(axis=2)
    if not known.any():
        return None
    difference = patient_points(cache, rows, places) - patient_points(cache, rows, annotated)
    distance_mm = np.linalg.norm(difference, axis=2)[known]
    median_mm, p95_mm = np.percentile(distance_mm, [50, 95])
    return PlaceError(int(known.sum()), float(median_mm), float(p95_mm))


def patient_points(cache: Cache, rows: Sequence[int], places: Places) -> Places:
    """Return places as patient coordinates (x, y, z) in mm, by the affine of each slice's stack."""
    stacks = several_stacks(cache, rows)
    affines = cache.series["affine"]
    points = np.full_like(places, np.nan)
    for number, row in enumerate(rows):
        first = np.asarray(affines[int(row)], np.float64).reshape(4, 4)
        for level in np.flatnonzero(~np.isnan(places[number]).any(axis=1)):
            d, h, w = places[number, level]
            start, affine = 0, first
            if row in stacks:
                stack = next(s for s in reversed(stacks[row]) if d + 0.5 >= s.start)
                start, affine = stack.start, stack.affine
            points[number, level] = (affine @ [d - start, h, w, 1])[:3]
    return points


def with_missing_levels(places: Places, known: Bool[np.ndarray, "5"]) -> Places:
    """Fill unknown levels from the line through the nearest two known levels.

    Raises
    ------
    InputError
        If fewer than two levels are known.
    """
    there = np.flatnonzero(known)
    if len(there) < 2:
        raise InputError(
            what="levels of discs with annotated points",
            got=[LEVELS[level] for level in there] or "none",
            expected="two or more, so that the others can be extrapolated along a line",
            cure="preprocess with the coordinate CSV beside the images, or use more studies",
        )
    filled = places.copy()
    for level in np.flatnonzero(~known):
        near, far = there[np.argsort(np.abs(there - level), kind="stable")[:2]]
        step = (places[:, far] - places[:, near]) / (far - near)
        filled[:, level] = places[:, near] + step * (level - near)
    return filled


def to_volume(
    crop_wh: Float[np.ndarray, "*n 2"], matrix: Float[np.ndarray, "2 3"]
) -> Float64[np.ndarray, "*n 2"]:
    """Return (h, w) of the volume for (w, h) of a crop's pixels, by the matrix of its view."""
    exact = matrix.astype(np.float64)
    volume_wh: np.ndarray = crop_wh @ exact[:, :2].T + exact[:, 2]
    return volume_wh[..., ::-1]


def to_crop(
    volume_hw: Float64[np.ndarray, "*n 2"], matrix: Float[np.ndarray, "2 3"]
) -> Float64[np.ndarray, "*n 2"]:
    """Return (w, h) of a crop's pixels for (h, w) of the volume: the inverse of `to_volume`."""
    exact = matrix.astype(np.float64)
    crop_wh: np.ndarray = (volume_hw[..., ::-1] - exact[:, 2]) @ np.linalg.inv(exact[:, :2]).T
    return crop_wh
