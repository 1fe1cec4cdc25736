"""How a study is acquired: series, stacks, orientations, matrices and numbering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lumbar.cache.names import LEVELS, SeriesType
from lumbar.synth.anatomy import MIDDLE_LEVEL, Phantom, rotation_matrix

SAGITTAL_SHAPES = (
    (512, 512),
    (320, 320),
    (384, 384),
    (448, 448),
    (256, 256),
    (462, 448),
    (384, 288),
)
SAGITTAL_SHAPE_WEIGHTS = (0.22, 0.24, 0.2, 0.1, 0.12, 0.06, 0.06)
AXIAL_SHAPES = ((320, 320), (256, 256), (384, 384), (512, 512), (320, 288))
AXIAL_SHAPE_WEIGHTS = (0.38, 0.3, 0.2, 0.05, 0.07)
"""Rows and columns, and how often. The public series have 92 shapes; 13.5 % are not square."""

CANAL_AT_WIDTH = 0.54
CANAL_AT_HEIGHT = 0.51
"""Where the canal at L3/L4 lies in a sagittal image, as a share of its width and height."""

FIELD_HEIGHT_DISCS = 2.27
"""Height of the sagittal field of view, in distances from L1/L2 to L5/S1."""

REVERSED_RATE = 0.36
"""Share of series with reversed InstanceNumber: 36 % of the public T1 series."""

SECOND_AXIAL_RATE = 335 / 1975
SPLIT_SIDES_RATE = 141 / 335
"""Share of studies with two axial series where each is annotated for one side only."""

SECOND_T1_RATE = 7 / 1975
MISSING_RATES = {SeriesType.SAGITTAL_T1: 2 / 1975, SeriesType.SAGITTAL_T2: 1 / 1975}

PARALLEL_RATE = 0.15
"""Share of axial series with one stack of parallel slices instead of one stack per disc."""

UNEQUAL_SPACING_RATE = 0.05


@dataclass(frozen=True)
class Stack:
    """Parallel slices. Slice 0 has the lowest InstanceNumber. Positions in LPS millimetres."""

    origin: Float64[np.ndarray, "3"]
    """Centre of the first pixel of slice 0."""
    along_columns: Float64[np.ndarray, "3"]
    """Unit direction of increasing column: the first three numbers of ImageOrientationPatient."""
    along_rows: Float64[np.ndarray, "3"]
    """Unit direction of increasing row: the last three."""
    step: Float64[np.ndarray, "3"]
    """From one slice to the next."""
    n_slices: int

    def position(self, index: int) -> Float64[np.ndarray, "3"]:
        """Return the centre of the first pixel of a slice."""
        return np.asarray(self.origin + index * self.step, np.float64)

    def nearest(self, point: Float64[np.ndarray, "3"]) -> tuple[int, float]:
        """Return the slice nearest to a point, and the distance (mm) of its plane."""
        normal = np.cross(self.along_columns, self.along_rows)
        step = float(self.step @ normal)
        offset = float((point - self.origin) @ normal)
        index = int(np.clip(round(offset / step), 0, self.n_slices - 1))
        return index, abs(offset - index * step)


@dataclass(frozen=True)
class Series:
    """The geometry of one series; slices are numbered stack by stack in this order."""

    series_type: SeriesType
    stacks: tuple[Stack, ...]
    rows: int
    columns: int
    row_spacing: float
    column_spacing: float
    thickness: float
    slice_step: float
    sides: tuple[int, ...] = (1, -1)
    """Which sides are annotated on it, as signs of x."""

    def locate(self, point: Float64[np.ndarray, "3"]) -> tuple[int, int, float, float]:
        """Return stack, slice, column and row of the pixel nearest to a point in LPS mm."""
        found = [stack.nearest(point) for stack in self.stacks]
        at = int(np.argmin([distance for _, distance in found]))
        stack, index = self.stacks[at], found[at][0]
        offset = point - stack.position(index)
        column = float(offset @ stack.along_columns) / self.column_spacing
        row = float(offset @ stack.along_rows) / self.row_spacing
        return at, index, column, row


def sample_series(
    rng: np.random.Generator, anatomy: Phantom, wanted: tuple[SeriesType, ...], max_matrix: int
) -> tuple[Series, ...]:
    """Sample the series of a study, in random order.

    A few studies lack a sagittal series or have two T1, some have two axial series, at the rates of
    the public data. A study always has at least one series of the wanted types.
    """
    series = []
    second = {
        SeriesType.SAGITTAL_T1: rng.random() < SECOND_T1_RATE,
        SeriesType.AXIAL_T2: rng.random() < SECOND_AXIAL_RATE,
    }
    split = rng.random() < SPLIT_SIDES_RATE
    missing = {kind: rng.random() < rate for kind, rate in MISSING_RATES.items()}
    for kind in wanted:
        if missing.get(kind) and len(wanted) > 1:
            continue
        if kind is not SeriesType.AXIAL_T2:
            copies = 1 + second.get(kind, False)
            series += [_sagittal(rng, anatomy, kind, max_matrix) for _ in range(copies)]
        elif not second[kind]:
            series.append(_axial(rng, anatomy, max_matrix, (1, -1)))
        else:
            sides = ((1,), (-1,)) if split else ((1, -1), ())
            series += [_axial(rng, anatomy, max_matrix, side) for side in sides]
    return tuple(series[index] for index in rng.permutation(len(series)))


def _sagittal(
    rng: np.random.Generator, anatomy: Phantom, kind: SeriesType, max_matrix: int
) -> Series:
    rows, columns = _shape(rng, SAGITTAL_SHAPES, SAGITTAL_SHAPE_WEIGHTS, max_matrix)
    top, middle, bottom = (
        anatomy.to_lps(0.0, anatomy.discs[level].s, anatomy.half_depth + 6)
        for level in (0, MIDDLE_LEVEL, len(LEVELS) - 1)
    )
    height = FIELD_HEIGHT_DISCS * float(np.linalg.norm(top - bottom)) * rng.uniform(0.95, 1.08)
    row_spacing, column_spacing = _spacing(rng, height / max(rows, columns))
    turn = anatomy.rotation @ rotation_matrix(*np.deg2rad(rng.normal(0, [2.0, 1.2, 1.5])))
    lateral, along_columns, up = turn.T
    along_rows = -up
    n_slices = int(rng.choice(np.arange(12, 21), p=_SAGITTAL_COUNTS))
    slice_step = rng.choice([4.0, 4.4, 4.48, 4.5, 4.8]) if n_slices > 12 else 4.8
    step = lateral * slice_step * (1 if rng.random() < REVERSED_RATE else -1)
    origin = (
        middle
        - along_columns * columns * column_spacing * (CANAL_AT_WIDTH + rng.normal(0, 0.02))
        - along_rows * rows * row_spacing * (CANAL_AT_HEIGHT + rng.normal(0, 0.015))
        - step * (n_slices - 1) / 2
        + lateral * rng.normal(0, 1.5)
    )
    stack = Stack(origin, along_columns, along_rows, step, n_slices)
    return Series(kind, (stack,), rows, columns, row_spacing, column_spacing, 4.0, slice_step)


_SAGITTAL_COUNTS = (0.02, 0.05, 0.08, 0.25, 0.15, 0.2, 0.15, 0.05, 0.05)


def _axial(
    rng: np.random.Generator, anatomy: Phantom, max_matrix: int, sides: tuple[int, ...]
) -> Series:
    rows, columns = _shape(rng, AXIAL_SHAPES, AXIAL_SHAPE_WEIGHTS, max_matrix)
    field = rng.uniform(150, 190)
    row_spacing, column_spacing = _spacing(rng, field / max(rows, columns))
    slice_step = float(rng.choice([3.5, 4.0, 4.4, 4.5]))
    error = rotation_matrix(*np.deg2rad(rng.normal(0, [1.5, 1.5, 1.5])))
    centres = [anatomy.to_lps(0.0, disc.s, anatomy.half_depth + 4) for disc in anatomy.discs]
    axes = [anatomy.axes_lps(disc.s) @ error for disc in anatomy.discs]
    counts = [int(rng.integers(5, 8)) for _ in LEVELS]
    if rng.random() < PARALLEL_RATE:
        reach = float(np.linalg.norm(centres[0] - centres[-1])) + 24
        centres = [(centres[0] + centres[-1]) / 2]
        axes, counts = [axes[MIDDLE_LEVEL]], [int(np.ceil(reach / slice_step))]
    sign = 1 if rng.random() < REVERSED_RATE else -1
    stacks = []
    for centre, (lateral, posterior, up), count in zip(centres, axes, counts, strict=True):
        step = up * slice_step * sign
        corner = (
            centre
            - lateral * columns * column_spacing * (0.5 + rng.normal(0, 0.01))
            - posterior * rows * row_spacing * (0.56 + rng.normal(0, 0.01))
        )
        origin = corner - step * ((count - 1) / 2 + rng.uniform(-0.3, 0.3))
        stacks.append(Stack(origin, lateral, posterior, step, count))
    ordered = tuple(stacks[index] for index in _file_order(rng, len(stacks)))
    return Series(
        SeriesType.AXIAL_T2, ordered, rows, columns, row_spacing, column_spacing,
        min(4.0, slice_step), slice_step, sides,
    )  # fmt: skip


def _file_order(rng: np.random.Generator, n_stacks: int) -> list[int]:
    """Return the order of the stacks: mostly superior to inferior; the last is often displaced."""
    order = list(range(n_stacks))
    chance = rng.random()
    if chance < 0.15:
        order.reverse()
    elif chance < 0.4:
        order.insert(int(rng.integers(n_stacks)), order.pop())
    return order


def _shape(
    rng: np.random.Generator,
    shapes: tuple[tuple[int, int], ...],
    weights: tuple[float, ...],
    max_matrix: int,
) -> tuple[int, int]:
    rows, columns = shapes[int(rng.choice(len(shapes), p=weights))]
    shrink = min(1.0, max_matrix / max(rows, columns))
    return round(rows * shrink), round(columns * shrink)


def _spacing(rng: np.random.Generator, spacing: float) -> tuple[float, float]:
    """Return row and column spacing: equal except in a few series."""
    unequal = rng.random() < UNEQUAL_SPACING_RATE
    factor = rng.uniform(1.05, 1.15) if unequal else 1.0
    return round(spacing * factor, 4), round(spacing, 4)
