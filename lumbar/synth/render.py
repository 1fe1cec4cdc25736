"""Magnitude images of a stack: anatomy at pixel positions, coil shading, Rician noise.

A slice is painted at the acquired resolution and interpolated to the matrix of the file, as
scanners do. Soft tissue has no fine detail and is painted on every second pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from lumbar.cache.names import SeriesType
from lumbar.synth.anatomy import Phantom
from lumbar.synth.canal import Profiles, profiles
from lumbar.synth.canvas import Canvas, Plane
from lumbar.synth.geometry import Series, Stack
from lumbar.synth.spine import paint_spine, spine_box
from lumbar.synth.tissue import STIR, T1, T2, Weighting, paint_soft_tissue

ACQUIRED_MM = {
    SeriesType.SAGITTAL_T1: 1.05,
    SeriesType.SAGITTAL_T2: 1.05,
    SeriesType.AXIAL_T2: 0.8,
}
"""Acquired in-plane resolution by series type, before interpolation to the matrix of the file."""

STIR_RATE = 0.06
SATURATION_BAND_RATE = 0.6
SOFT_STRIDE = 2
N_WAVES = 5
NOISE_POOL_SLICES = 5
"""Noise is sampled for this many slices per series; each slice takes random windows of it."""


@dataclass(frozen=True)
class Scanner:
    """How the scanner images a series: weighting, noise, shading."""

    contrast: Weighting
    noise: float
    """Standard deviation of each channel, in units of the brightest tissue."""
    waves: Float64[np.ndarray, "waves 5"]
    """Shading as a sum of plane waves: wave vector (rad/mm), phase, amplitude."""
    saturation_band: bool


def sample_scanner(rng: np.random.Generator, kind: SeriesType, noise: float) -> Scanner:
    """Sample how a series is imaged; `noise` is the typical noise level."""
    gains = rng.normal(1.0, 0.06, 4).tolist()
    contrast = T1 if kind is SeriesType.SAGITTAL_T1 else T2
    stir = rng.random() < STIR_RATE
    if stir and kind is SeriesType.SAGITTAL_T2:
        contrast = STIR
    vectors = rng.normal(0, 1, (N_WAVES, 3)) / rng.uniform(25, 120, (N_WAVES, 1))
    waves = np.column_stack(
        [vectors, rng.uniform(0, 2 * np.pi, N_WAVES), rng.uniform(0.02, 0.07, N_WAVES)]
    )
    return Scanner(
        contrast=contrast.scaled(*gains),
        noise=noise * rng.uniform(0.6, 1.5),
        waves=waves,
        saturation_band=kind is not SeriesType.AXIAL_T2 and rng.random() < SATURATION_BAND_RATE,
    )


@dataclass(frozen=True)
class Scene:
    """A patient in the scanner: what all slices of one series share."""

    anatomy: Phantom
    along: Profiles
    scanner: Scanner
    series: Series
    noise_pool: Float32[np.ndarray, " samples"]


def make_scene(rng: np.random.Generator, anatomy: Phantom, series: Series, noise: float) -> Scene:
    """Put a patient in the scanner for one series; `noise` is the typical noise level."""
    scanner = sample_scanner(rng, series.series_type, noise)
    acquired = ACQUIRED_MM[series.series_type]
    n_acquired = (
        _grid(series.rows, series.row_spacing, acquired).size
        * _grid(series.columns, series.column_spacing, acquired).size
    )
    pool = rng.standard_normal(NOISE_POOL_SLICES * n_acquired, dtype=np.float32)
    return Scene(anatomy, profiles(anatomy), scanner, series, pool * np.float32(scanner.noise))


def render_slice(
    rng: np.random.Generator, scene: Scene, stack: Stack, index: int
) -> Float32[np.ndarray, "rows columns"]:
    """Return the magnitude image of one slice; the brightest tissue is about 1."""
    series = scene.series
    acquired = ACQUIRED_MM[series.series_type]
    row_at = _grid(series.rows, series.row_spacing, acquired)
    column_at = _grid(series.columns, series.column_spacing, acquired)
    soft_rows, soft_columns = row_at[::SOFT_STRIDE], column_at[::SOFT_STRIDE]
    points = _points(scene, stack, index, (soft_rows, soft_columns))
    soft = _soft_canvas(scene, points)
    gain = _shading(scene.scanner, soft, points)
    to_acquired = _Resize.between((soft_rows, soft_columns), (row_at, column_at))
    image = to_acquired(soft.image)
    view = soft.find(*spine_box(scene.anatomy))
    if view is not None:
        fine = tuple(slice(part.start * SOFT_STRIDE, part.stop * SOFT_STRIDE) for part in view)
        to_fine = to_acquired.crop(*fine)
        x, s, n = (to_fine(plane) for plane in (soft.x, soft.s, soft.n))
        spine = Canvas(image[fine], x, s, n)
        paint_spine(spine, scene.anatomy, scene.scanner.contrast, scene.along)
    image *= to_acquired(gain)
    _add_noise(rng, image, scene.noise_pool)
    matrix = (np.arange(series.rows), np.arange(series.columns))
    return _Resize.between((row_at, column_at), matrix)(image)


def _grid(n_pixels: int, spacing: float, acquired: float) -> Float64[np.ndarray, " n"]:
    """Return the centres of the acquired pixels of one axis, in pixels of the file."""
    n_acquired = max(8, min(n_pixels, round(n_pixels * spacing / acquired)))
    return (np.arange(n_acquired) + 0.5) * (n_pixels / n_acquired) - 0.5


def _points(
    scene: Scene, stack: Stack, index: int, at: tuple[np.ndarray, np.ndarray]
) -> tuple[Plane, Plane, Plane]:
    """Return x, y, z of a grid of rows and columns in the patient's own frame."""
    to_body = scene.anatomy.rotation.T
    origin = to_body @ (stack.position(index) - scene.anatomy.shift)
    down = np.outer(to_body @ stack.along_rows, at[0] * scene.series.row_spacing)
    across = np.outer(to_body @ stack.along_columns, at[1] * scene.series.column_spacing)
    x, y, z = (
        (origin[axis] + down[axis][:, None] + across[axis]).astype(np.float32) for axis in range(3)
    )
    return x, y, z


def _soft_canvas(scene: Scene, points: tuple[Plane, Plane, Plane]) -> Canvas:
    x, s, n = scene.anatomy.curve.from_body(*points)
    canvas = Canvas(np.zeros_like(x), x, s, n)
    paint_soft_tissue(canvas, scene.anatomy, scene.scanner.contrast, points[1])
    return canvas


def _shading(scanner: Scanner, soft: Canvas, points: tuple[Plane, Plane, Plane]) -> Plane:
    """Return smooth coil shading; sagittal series often have a dark band over the belly."""
    gain = 0.92 + 0.0022 * np.clip(soft.n, -90, 90)
    for kx, ky, kz, phase, amplitude in scanner.waves.astype(np.float32):
        gain += amplitude * np.sin(kx * points[0] + ky * points[1] + kz * points[2] + phase)
    if scanner.saturation_band:
        gain *= np.clip((soft.n + 75) / 25, 0.15, 1)
    return np.asarray(gain, np.float32)


def _add_noise(
    rng: np.random.Generator, image: Plane, pool: Float32[np.ndarray, " samples"]
) -> None:
    """Add Rician noise: the magnitude after Gaussian noise in both channels."""
    real, imaginary = (
        pool[start : start + image.size].reshape(image.shape)
        for start in rng.integers(0, pool.size - image.size, 2)
    )
    image += real
    image *= image
    image += imaginary * imaginary
    np.sqrt(image, out=image)


@dataclass(frozen=True)
class _Resize:
    """Bilinear interpolation from one grid of rows and columns to another."""

    low_row: np.ndarray
    low_column: np.ndarray
    row_weight: Float32[np.ndarray, "rows 1"]
    column_weight: Float32[np.ndarray, " columns"]

    @classmethod
    def between(
        cls, source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray]
    ) -> _Resize:
        low_row, row_weight = _neighbours(source[0], target[0])
        low_column, column_weight = _neighbours(source[1], target[1])
        return cls(low_row, low_column, row_weight[:, None], column_weight)

    def crop(self, rows: slice, columns: slice) -> _Resize:
        """Return the interpolation of some target rows and columns."""
        return _Resize(
            self.low_row[rows],
            self.low_column[columns],
            self.row_weight[rows],
            self.column_weight[columns],
        )

    def __call__(self, plane: Plane) -> Float32[np.ndarray, "rows columns"]:
        above = plane[self.low_row]
        between_rows = above + (plane[self.low_row + 1] - above) * self.row_weight
        left = np.take(between_rows, self.low_column, axis=1)
        out = np.take(between_rows, self.low_column + 1, axis=1)
        out -= left
        out *= self.column_weight
        out += left
        return out


def _neighbours(
    source: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, Float32[np.ndarray, " n"]]:
    """Return each target's lower neighbour in an even grid and the weight of the upper one."""
    at = np.clip((target - source[0]) / (source[1] - source[0]), 0, len(source) - 1)
    low = np.minimum(at.astype(np.int64), len(source) - 2)
    return low, (at - low).astype(np.float32)
