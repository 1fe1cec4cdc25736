"""Samples to train on or to predict: series, discs or studies, with geometry and grades."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import numpy as np
import polars as pl
from jaxtyping import Float64, Int8, Int64

from lumbar.cache.errors import InputError
from lumbar.cache.format import HALF_VOXEL, Stack
from lumbar.cache.labels import UNKNOWN, Severities, severities_of
from lumbar.cache.names import LEVELS, N_CELLS, SERIES_TYPES, SHOWN_CONDITIONS, SeriesType
from lumbar.cache.store import Cache

ABSENT = -1
"""The row number of a series that a study does not have."""
WHOLE_SPINE = -1
"""The level of a sample that is not a single disc."""

PLACEHOLDER_PIXELS = 10.0
"""Points with a smaller column or row are placeholders: the data set has 13, all in a corner."""

GAP_TOLERANCE = 0.1
"""How far the slice behind a missing one may lie off its place, in distances of slices."""

PIXEL_TOLERANCE_MM = 1e-3
"""Difference of pixel vectors at which an image of 384 pixels ends 0.4 mm away."""


@dataclass(frozen=True, slots=True)
class Samples:
    """``n`` samples of ``s`` series each, in plain numbers; ``s`` is 1 for series and discs.

    ``row`` are rows of the cache's series table, or `ABSENT`; ``series_type`` are indices into
    `SERIES_TYPES`; ``shape`` is (depth, height, width); ``spacing_mm`` is (height, width).
    ``patient_axes`` are the array axes (0, 1 or 2, each once) nearest to right-left, front-back and
    head-foot; with several stacks, those of most slices. ``centre_dhw`` is the voxel at the centre
    of the crop, NaN for the middle of the image. ``stack`` are the first slice and the one behind
    the last that may show the disc: its own stack, or the whole volume in a sagittal series (where
    a stack ends at a missing slice) and for samples without a centre. ``level`` is that of a disc,
    else `WHOLE_SPINE`. ``severity`` is 0, 1, 2 or `UNKNOWN` per cell; of a disc only its own level
    is known. ``whole_studies`` tells studies, even those of one series, from series.
    """

    row: Int64[np.ndarray, "n s"]
    series_type: Int64[np.ndarray, "n s"]
    study_id: tuple[str, ...]
    shape: Int64[np.ndarray, "n s 3"]
    spacing_mm: Float64[np.ndarray, "n s 2"]
    patient_axes: Int64[np.ndarray, "n s 3"]
    centre_dhw: Float64[np.ndarray, "n s 3"]
    stack: Int64[np.ndarray, "n s 2"]
    level: Int8[np.ndarray, " n"]
    severity: Severities
    whole_studies: bool = False

    def __len__(self) -> int:
        return len(self.study_id)

    @property
    def rows(self) -> list[int]:
        """The rows of all present series, each once, in ascending order."""
        return [int(row) for row in np.unique(self.row[self.row != ABSENT])]

    @classmethod
    def of_series(cls, cache: Cache, rows: Sequence[int]) -> Samples:
        """Take rows of a cache's series table; without labels all grades are unknown."""
        return cls._gather(
            cache, np.asarray(rows, np.int64).reshape(-1, 1), several_stacks(cache, rows)
        )

    @classmethod
    def of_discs(cls, cache: Cache, rows: Sequence[int]) -> Samples:
        """Take every disc of the given series that has annotated points, at their mean.

        The mean of the left and right points is the disc's middle. Where they lie in several stacks
        of an axial series, its slice is in the stack with most points. Points outside of the cached
        volume and placeholders are ignored.
        """
        stacks = several_stacks(cache, rows)
        names = (
            cache.series[list(rows)]
            .select("study_id", "series_id", "depth")
            .with_columns(row=pl.Series(list(rows), dtype=pl.Int64))
        )
        points = (
            cache.coordinates.drop_nulls(["d", "h", "w"])
            .filter(pl.min_horizontal("x", "y") >= PLACEHOLDER_PIXELS)
            .join(names, on=["study_id", "series_id"])
            .join(_stack_table(names, stacks_of_discs(cache, stacks)), on="row")
            # A point may lie up to the outer edges of the outermost voxels.
            .with_columns(slice=(pl.col("d") + 0.5).floor().clip(0, pl.col("depth") - 1))
            .filter(pl.col("slice").is_between("start", "stop", closed="left"))
        )
        slices = (
            points.group_by("row", "level", "start", "stop")
            .agg(pl.col("d").mean(), points=pl.len())
            .sort("points", "start", descending=[True, False])
            .unique(["row", "level"], keep="first", maintain_order=True)
        )
        discs = (
            points.group_by("row", "level")
            .agg(pl.col("h", "w").mean())
            .join(slices, on=["row", "level"])
            .with_columns(
                level=pl.col("level").replace_strict(
                    list(LEVELS), list(range(len(LEVELS))), return_dtype=pl.Int8
                )
            )
            .sort("row", "level")
        )
        level = discs["level"].to_numpy()
        samples = cls._gather(cache, discs["row"].to_numpy().reshape(-1, 1), stacks)
        return replace(
            samples,
            level=level,
            centre_dhw=discs.select("d", "h", "w").to_numpy().reshape(-1, 1, 3),
            stack=discs.select("start", "stop").to_numpy().reshape(-1, 1, 2),
            severity=_of_own_level(samples.severity, level),
        )

    @classmethod
    def of_places(
        cls, cache: Cache, rows: Sequence[int], places: Float64[np.ndarray, "n 5 3"]
    ) -> Samples:
        """Take the five discs of each given series at the given places (d, h, w).

        A disc's slices come from the stack of its place; in a sagittal series from all slices.

        Raises
        ------
        InputError
            If a place lies outside of its series' slices.
        """
        depth = cache.series["depth"].to_numpy()[list(rows)][:, None]
        outside = ~((places[..., 0] >= -HALF_VOXEL) & (places[..., 0] <= depth - HALF_VOXEL))
        if outside.any():
            number, at = np.argwhere(outside)[0]
            raise InputError(
                what="the place of a disc outside of its series",
                where=f"row {rows[number]}, {LEVELS[at]}",
                got=f"slice {places[number, at, 0]}",
                expected=f"0 to {depth[number, 0] - 1}",
                cure="find the places in this cache",
            )
        stacks = several_stacks(cache, rows)
        row = np.repeat(np.asarray(rows, np.int64), len(LEVELS)).reshape(-1, 1)
        samples = cls._gather(cache, row, stacks)
        level = np.tile(np.arange(len(LEVELS), dtype=np.int8), len(rows))
        centre = places.reshape(-1, 1, 3)
        return replace(
            samples,
            level=level,
            centre_dhw=centre,
            stack=_stacks_around(
                centre[:, 0, 0], row[:, 0], samples.shape[:, 0, 0], stacks_of_discs(cache, stacks)
            ),
            severity=_of_own_level(samples.severity, level),
        )

    @classmethod
    def of_studies(
        cls, cache: Cache, study_ids: Sequence[str], types: Sequence[SeriesType]
    ) -> Samples:
        """Take whole studies: one slot per series of the given types, `ABSENT` where empty.

        A type has as many slots as the study with the most series of it. Studies without any series
        of these types are left out.
        """
        rows_of: dict[tuple[str, str], list[int]] = {}
        identity = cache.series.select("study_id", "series_type").iter_rows()
        for number, (study_id, series_type) in enumerate(identity):
            rows_of.setdefault((study_id, series_type), []).append(number)
        here = [s for s in study_ids if any((s, str(t)) in rows_of for t in types)]
        slots = {
            t: max((len(rows_of.get((s, str(t)), ())) for s in here), default=0) for t in types
        }
        row = np.array(
            [
                [row for t in types for row in _padded(rows_of.get((s, str(t)), []), slots[t])]
                for s in here
            ],
            np.int64,
        ).reshape(len(here), sum(slots.values()))
        stacks = several_stacks(cache, np.unique(row[row != ABSENT]).tolist())
        samples = cls._gather(cache, row, stacks, study_ids=here)
        of_slot = [SERIES_TYPES.index(t) for t in types for _ in range(slots[t])]
        return replace(
            samples,
            series_type=np.tile(np.array(of_slot, np.int64), (len(here), 1)),
            whole_studies=True,
        )

    @classmethod
    def _gather(
        cls,
        cache: Cache,
        row: Int64[np.ndarray, "n s"],
        stacks: Mapping[int, tuple[Stack, ...]],
        *,
        study_ids: Sequence[str] | None = None,
    ) -> Samples:
        """Look up each row in the tables; an absent series borrows the values of row 0.

        ``stacks`` has the rows with several stacks.
        """
        table = cache.series[np.maximum(row, 0).ravel().tolist()]
        studies = table["study_id"].to_list() if study_ids is None else list(study_ids)
        affine = np.array(table["affine"].to_list(), np.float64).reshape(*row.shape, 4, 4)
        grades = dict(
            zip(cache.labels["study_id"].to_list(), severities_of(cache.labels), strict=True)
        )
        unknown = np.full(N_CELLS, UNKNOWN, np.int8)
        types = [SERIES_TYPES.index(SeriesType(t)) for t in table["series_type"]]
        shape = table.select("depth", "height", "width").to_numpy().astype(np.int64)
        spacing_mm = table.select("spacing_h_mm", "spacing_w_mm").to_numpy().astype(np.float64)
        axes = patient_axes(affine)
        for number, of_row in stacks.items():
            axes[row == number] = _axes_of_most_slices(of_row)
        return cls(
            row=row,
            series_type=np.array(types, np.int64).reshape(row.shape),
            study_id=tuple(studies),
            shape=shape.reshape(*row.shape, 3),
            spacing_mm=spacing_mm.reshape(*row.shape, 2),
            patient_axes=axes,
            centre_dhw=np.full((*row.shape, 3), np.nan),
            stack=(shape[:, :1] * [0, 1]).reshape(*row.shape, 2),
            level=np.full(len(row), WHOLE_SPINE, np.int8),
            severity=np.array([grades.get(s, unknown) for s in studies], np.int8).reshape(-1, 25),
        )

    def worst(self, weights: tuple[float, float, float]) -> Float64[np.ndarray, " n"]:
        """Return the greatest severity weight over the known cells that a sample's series show.

        A sample without known cells has the smallest weight.
        """
        shown = np.zeros((len(SERIES_TYPES), N_CELLS), bool)
        for number, series_type in enumerate(SERIES_TYPES):
            conditions = SHOWN_CONDITIONS.get(series_type, range(N_CELLS // len(LEVELS)))
            shown[number] = np.isin(np.arange(N_CELLS) // len(LEVELS), list(conditions))
        visible = (shown[self.series_type] & (self.row != ABSENT)[..., None]).any(axis=1)
        of_cell = np.array([*weights, min(weights)])[self.severity]
        greatest: Float64[np.ndarray, " n"] = np.where(visible, of_cell, min(weights)).max(axis=1)
        return greatest


def patient_axes(affine: Float64[np.ndarray, "*n 4 4"]) -> Int64[np.ndarray, "*n 3"]:
    """Return the array axes nearest to x, y and z, each axis once.

    Of the six assignments, the one whose directions agree best: in oblique stacks the nearest axis
    of two directions may be the same.
    """
    # Unit vectors: a tilted step of 4 mm between slices has a greater x than a pixel of 0.5 mm.
    linear = affine[..., :3, :3]
    agreement = np.abs(linear) / np.linalg.norm(linear, axis=-2, keepdims=True)
    ways = np.array(list(permutations(range(3))))
    total = sum(agreement[..., patient, ways[:, patient]] for patient in range(3))
    best: Int64[np.ndarray, "*n 3"] = ways[np.argmax(total, axis=-1)]
    return best


def _axes_of_most_slices(stacks: Sequence[Stack]) -> Int64[np.ndarray, "3"]:
    """Return the patient's axes in most slices of a series, first by the left-right axis.

    All stacks of a series are mirrored along one axis, whatever the tilt of each.
    """
    of_stack = [tuple(map(int, patient_axes(stack.affine))) for stack in stacks]
    slices, left_right = Counter[tuple[int, ...]](), Counter[int]()
    for axes, stack in zip(of_stack, stacks, strict=True):
        slices[axes] += stack.stop - stack.start
        left_right[axes[0]] += stack.stop - stack.start
    return np.array(max(slices, key=lambda axes: (left_right[axes[0]], slices[axes])), np.int64)


def several_stacks(cache: Cache, rows: Iterable[int]) -> dict[int, tuple[Stack, ...]]:
    """Return the stacks of the rows that have several; the table has only the first."""
    n_stacks = cache.series["n_stacks"].to_list()
    return {row: cache.attributes(row).stacks for row in map(int, rows) if n_stacks[row] > 1}


def stacks_of_discs(
    cache: Cache, stacks: Mapping[int, tuple[Stack, ...]]
) -> dict[int, tuple[Stack, ...]]:
    """Return the stacks of axial series, each of which shows another disc.

    Each slice of a sagittal series shows all discs, on one side of the patient, so its stacks are
    left out. Axial stacks with a single missing slice between them show the same disc.
    """
    types = cache.series["series_type"].to_list()
    return {
        row: tuple(_joined_over_gaps(of_row))
        for row, of_row in stacks.items()
        if _is_axial(types[row], of_row)
    }


def _joined_over_gaps(stacks: Sequence[Stack]) -> list[Stack]:
    """Join neighbouring stacks between which a single slice is missing."""
    joined = [stacks[0]]
    for before, stack in pairwise(stacks):
        if _lacks_one_slice(before, stack):
            joined[-1] = replace(joined[-1], stop=stack.stop)
        else:
            joined.append(stack)
    return joined


def _lacks_one_slice(before: Stack, behind: Stack) -> bool:
    """Return whether a single slice is missing between two stacks whose pixels are in line."""
    step_mm = before.affine[:3, 0]
    last_mm = before.affine[:3, 3] + step_mm * (before.stop - before.start - 1)
    off_mm = np.linalg.norm(behind.affine[:3, 3] - last_mm - 2 * step_mm)
    pixel_mm = np.abs(behind.affine[:3, 1:3] - before.affine[:3, 1:3]).max()
    return bool(
        off_mm <= GAP_TOLERANCE * np.linalg.norm(step_mm) and pixel_mm <= PIXEL_TOLERANCE_MM
    )


def _is_axial(series_type: str, stacks: Sequence[Stack]) -> bool:
    """Return whether the slices run along the discs, by the series type or else by the affines."""
    right_left, _, head_foot = _axes_of_most_slices(stacks)
    if series_type == SeriesType.OTHER:
        return bool(right_left != 0)
    return series_type == SeriesType.AXIAL_T2 or bool(head_foot == 0)


def _of_own_level(severity: Severities, level: Int8[np.ndarray, " n"]) -> Severities:
    """Return the grades with all levels but the disc's own unknown."""
    elsewhere = np.arange(N_CELLS) % len(LEVELS) != level[:, None]
    own: Severities = np.where(elsewhere, UNKNOWN, severity).astype(np.int8)
    return own


def _stacks_around(
    d: Float64[np.ndarray, " n"],
    row: Int64[np.ndarray, " n"],
    depth: Int64[np.ndarray, " n"],
    stacks: Mapping[int, tuple[Stack, ...]],
) -> Int64[np.ndarray, "n 1 2"]:
    """Return the first slice of the stack around each place, and the one behind its last."""
    # A place may lie up to the outer edges of the outermost voxels.
    nearest = np.clip(np.floor(d + HALF_VOXEL), 0, depth - 1)
    found = np.stack([np.zeros_like(depth), depth], axis=1)
    for number, at in enumerate(nearest):
        for stack in stacks.get(int(row[number]), ()):
            if stack.start <= at < stack.stop:
                found[number] = stack.start, stack.stop
    return found[:, None]


def _stack_table(names: pl.DataFrame, stacks: Mapping[int, tuple[Stack, ...]]) -> pl.DataFrame:
    """Return ``row``, ``start`` and ``stop`` of every stack of the given series."""
    lines = [
        (row, start, stop)
        for row, depth in names.select("row", "depth").iter_rows()
        for start, stop in [(s.start, s.stop) for s in stacks.get(row, ())] or [(0, depth)]
    ]
    schema = dict.fromkeys(("row", "start", "stop"), pl.Int64)
    return pl.DataFrame(lines, schema=schema, orient="row")


def _padded(rows: list[int], slots: int) -> list[int]:
    return rows + [ABSENT] * (slots - len(rows))
