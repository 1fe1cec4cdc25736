"""``coordinates.parquet``: the annotated points, in the cached arrays and in the patient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import polars as pl

from lumbar.cache.format import COORDINATES_SCHEMA, HALF_VOXEL, VolumeAttributes
from lumbar.pipeline.reject import first_of

PLACED = ("d", "h", "w", "x_mm", "y_mm", "z_mm")

MAX_NAMED = 5
"""Images of each flag that the log names."""

KEY = ("study_id", "series_id")
IMAGE = (*KEY, "instance_number")

Image = tuple[str, str, int]
"""Study, series and the number of an image."""

_log = logging.getLogger(__name__)


class PointFlag(StrEnum):
    """Why a point has null columns; it keeps its row in the table."""

    NO_SLICE = "no_slice"
    AMBIGUOUS = "ambiguous"
    OUTSIDE = "outside"


POINT_SENTENCES: dict[PointFlag, str] = {
    PointFlag.NO_SLICE: "The point names a series or an image that is not in the cache.",
    PointFlag.AMBIGUOUS: "The point names an image by a number that several slices have.",
    PointFlag.OUTSIDE: "The point lies outside its picture.",
}


def make_point_table(
    points: pl.DataFrame | None,
    shapes_hw: Mapping[tuple[str, str], tuple[int, int]],
    find: Callable[[str, str], VolumeAttributes | None],
) -> pl.DataFrame:
    """Return the points of `lumbar.pipeline.source.rsna_csv.read_points` with their places.

    ``shapes_hw`` has height and width of the stored series, ``find`` returns the attributes of one.
    A point whose slice is not cached, or is ambiguous, keeps its row with null places. A point
    outside of its original picture, or cropped out of its slice, keeps its place in the patient,
    with null d, h and w. The rows are sorted by all columns.
    """
    if points is None:
        return pl.DataFrame(schema=COORDINATES_SCHEMA)
    rows: list[dict[str, Any]] = []
    for (study_id, series_id), group in sorted(points.group_by(KEY), key=lambda item: str(item[0])):
        attributes = find(str(study_id), str(series_id))
        for row in group.iter_rows(named=True):
            place: Sequence[float | None] | None = None
            if attributes is not None:
                shape_hw = shapes_hw[str(study_id), str(series_id)]
                place = _place_or_flag(attributes, shape_hw, row)
            rows.append(row | dict(zip(PLACED, place or (None,) * len(PLACED), strict=True)))
    order = [*KEY, "condition", "level", "instance_number", "x", "y"]
    return pl.DataFrame(rows, schema=COORDINATES_SCHEMA).sort(order)


def _place_or_flag(
    attributes: VolumeAttributes, shape_hw: tuple[int, int], row: Mapping[str, Any]
) -> Sequence[float | None] | None:
    """Return the place of a point: None without a slice, null d, h and w outside of it."""
    number, x, y = row["instance_number"], row["x"], row["y"]
    place = place_point(attributes, number, x, y)
    if place is None:
        return None
    (grid,) = attributes.grids_of(number)
    if grid.holds(x, y) and is_inside(place[1:3], shape_hw):
        return place
    return None, None, None, *place[3:]


def point_flags(points: pl.DataFrame, unclear: Collection[Image] = ()) -> pl.Series:
    """Return the flag of each row of ``coordinates.parquet``, null for a placed point.

    ``unclear`` are the images whose numbers several slices have (`find_unclear`).
    """
    is_unclear = [image in unclear for image in points.select(IMAGE).iter_rows()]
    flag = (
        pl.when(pl.col("x_mm").is_null() & pl.Series(is_unclear, dtype=pl.Boolean))
        .then(pl.lit(str(PointFlag.AMBIGUOUS)))
        .when(pl.col("x_mm").is_null())
        .then(pl.lit(str(PointFlag.NO_SLICE)))
        .when(pl.col("d").is_null())
        .then(pl.lit(str(PointFlag.OUTSIDE)))
        .otherwise(None)
    )
    return points.select(flag.alias("flag")).to_series()


def find_unclear(
    points: pl.DataFrame, find: Callable[[str, str], VolumeAttributes | None]
) -> set[Image]:
    """Return the images of points without a place whose numbers several slices have."""
    unclear: set[Image] = set()
    named = points.filter(pl.col("x_mm").is_null()).select(IMAGE).unique(maintain_order=True)
    for (study_id, series_id), group in named.group_by(KEY, maintain_order=True):
        attributes = find(str(study_id), str(series_id))
        if attributes is not None:
            unclear.update(
                image for image in group.iter_rows() if len(attributes.grids_of(image[2])) > 1
            )
    return unclear


def warn_of_flagged(points: pl.DataFrame, unclear: Collection[Image]) -> dict[str, int]:
    """Warn in the log of flagged points, with their first images; return the counts by flag."""
    flagged = points.with_columns(point_flags(points, unclear))
    counts: dict[str, int] = {}
    for flag, sentence in POINT_SENTENCES.items():
        found = flagged.filter(pl.col("flag") == str(flag))
        if found.height:
            counts[str(flag)] = found.height
            images = found.select(IMAGE).unique(maintain_order=True)
            names = first_of(["/".join(map(str, row)) for row in images.iter_rows()], MAX_NAMED)
            _log.warning("%d points %s: %s (%s)", found.height, flag, sentence, names)
    return counts


def is_inside(place_hw: Sequence[float | None], shape_hw: tuple[int, int]) -> bool:
    """Tell whether a place lies in a slice, including its border voxels to their outer edge."""
    return all(
        voxel is not None and -HALF_VOXEL <= voxel <= size - HALF_VOXEL
        for voxel, size in zip(place_hw, shape_hw, strict=True)
    )


def place_point(
    attributes: VolumeAttributes, instance_number: int, x: float, y: float
) -> tuple[float, ...] | None:
    """Return d, h, w in the array and x, y, z in patient millimetres.

    None if the image is not cached, or if several slices have its number. ``x`` and ``y`` are
    column and row of the original image, zero-based at pixel centres.
    """
    grids = attributes.grids_of(instance_number)
    if len(grids) != 1:
        return None
    d = grids[0].start
    stack = attributes.stack_of(d)
    h, w = grids[0].matrix @ np.array([x, y, 1.0])
    position_lps = stack.affine @ np.array([d - stack.start, h, w, 1.0])
    return (float(d), float(h), float(w), *map(float, position_lps[:3]))
