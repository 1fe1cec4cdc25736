"""The compiled pass that draws samples, against a plain reference in double precision."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64

from lumbar.doctor.result import CheckResult, failed, passed
from lumbar.train.plan.augment import for_stored, unchanged
from lumbar.train.plan.crop import Matrix
from lumbar.train.plan.slices import Slices
from lumbar.train.reader.dali_numba import as_rendered, renderer_of

GAIN, OFFSET = 1 / 255, -0.25
SIZE_HW = (40, 48)

TOLERANCE = {"float32": 1e-4, "bfloat16": 2**-8 * (1 + OFFSET) + 1e-4}
"""For normalised values up to 1 + `OFFSET`. Positions are computed in single precision; bfloat16
keeps 8 bits and is rounded to the nearest."""

COMPILER_CURE = (
    "uv pip install --reinstall numba llvmlite; empty the folder of NUMBA_CACHE_DIR if it is set"
)


def check_compiled_pass(dtype_name: str) -> CheckResult:
    """Draw a turned, shifted sample of a random volume in a type; compare every pixel."""
    rng = np.random.default_rng(0)
    volume_dhw = rng.integers(0, 256, (10, 44, 36), np.uint8)
    slices = np.array([0, 3, 9, -1, 5, 5, 8, 1, 2, 7], np.int32)
    # The target reaches beyond the source on all sides.
    matrix = np.array([[0.9, 0.2, -6.3], [-0.25, 1.15, 7.6]], np.float32)
    numbers = for_stored(unchanged(SIZE_HW), GAIN, OFFSET)
    dtype: torch.dtype = getattr(torch, dtype_name)
    draw, bits = renderer_of(dtype, light=True)
    out = np.full((len(slices), *SIZE_HW), 99, bits)
    draw(out, volume_dhw, slices, matrix, numbers, np.zeros(2, np.uint32))
    drawn = as_rendered(torch.from_numpy(out), dtype).double().numpy()
    most = float(np.abs(drawn - _reference(volume_dhw, slices, matrix)).max())
    found = f"differs by up to {most:.1e}"
    if most <= TOLERANCE[dtype_name]:
        return passed(found)
    return failed(f"{found}; expected at most {TOLERANCE[dtype_name]:.1e}", COMPILER_CURE)


def _reference(
    volume_dhw: np.ndarray, slices: Slices, matrix: Matrix
) -> Float64[np.ndarray, "d h w"]:
    """Interpolate linearly among four neighbours; the source is 0 outside, absent slices are 0."""
    rows, columns = np.indices(SIZE_HW)
    x, y = np.tensordot(matrix.astype(np.float64), np.stack([columns, rows, rows * 0 + 1]), 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    _, height, width = volume_dhw.shape
    image = np.zeros((len(slices), *SIZE_HW))
    for below, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        h, w = top + below, left + right
        share = np.abs(1 - below - (y - top)) * np.abs(1 - right - (x - left))
        inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
        image[:, inside] += share[inside] * volume_dhw[slices[:, None], h[inside], w[inside]]
    image = image * GAIN + OFFSET
    image[slices < 0] = 0
    return image
