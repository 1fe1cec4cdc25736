"""Render views by DALI operators on a GPU: the same steps and parameters as the compiled pass.

`lumbar.train.kernels` renders the same pixels on the CPU and defines every step. Only the noise
differs: it is DALI's own. A step whose strength is 0 is left out of the graph. Each operator reads
and writes all pixels once, so the default augmentation has few. The CPU can run this graph too,
slowly, for tests.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from nvidia.dali import fn, math, types

from lumbar.train.plan import pixel_params
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.slices import MOST_SLICES

FAINTEST_BLUR = 0.01
"""Sigma in pixels that replaces 0, which DALI does not accept."""


@no_type_check
def render_with_operators(
    picked: Any,
    slices: Any,
    matrix: Any,
    numbers: Any,
    key: Any,
    *,
    crop: CropConfig,
    augment: AugmentConfig,
    device: str,
) -> Any:
    """Render views from their picked slices (d, height, width, 1); return (d, h, w) float32.

    Inputs on the host are copied to the device once per step; constants lie there already. Sizes
    and matrices stay on the host, where DALI expects them.
    """

    @no_type_check
    def on_device(node: Any) -> Any:
        return node.gpu() if device == "gpu" else node

    @no_type_check
    def number(place: int) -> Any:
        return on_device(numbers[place])

    image = on_device(picked) if picked.device == "cpu" else picked
    image = _warp(image, matrix, crop)
    if augment.low_resolution > 0:
        image = _resize(image, numbers, crop)
    if augment.blur_mm > 0:
        image = _blur(image, numbers)
    image = fn.squeeze(_scale(image, numbers), axes=[3])
    if augment.bias_field > 0:
        image = image * _bias_field(number, crop, device)
    if augment.gamma > 0:
        image = _gamma(image, number(pixel_params.GAMMA))
    if augment.noise > 0:
        image = _add_noise(image, numbers, key)
    kept = on_device(_present(slices))
    if augment.cutout > 0:
        kept = kept - _box(slices, numbers, crop, on_device)
    return image * kept


@no_type_check
def _scale(image: Any, numbers: Any) -> Any:
    """Multiply by the gain and add the offset."""
    return fn.brightness_contrast(
        image,
        contrast=numbers[pixel_params.GAIN],
        contrast_center=0.0,
        brightness_shift=numbers[pixel_params.OFFSET],
    )


@no_type_check
def _warp(image: Any, matrix: Any, crop: CropConfig) -> Any:
    """Warp to the crop's size, or beyond where the matrix is of a coarser grid; outside is 0."""
    # DALI's pixel centres lie at halves, ours at whole numbers.
    shift = 0.5 - 0.5 * (matrix[:, 0:1] + matrix[:, 1:2])
    halves = fn.cat(matrix[:, 0:2], matrix[:, 2:3] + shift, axis=1)
    size = (crop.height, crop.width)
    return fn.warp_affine(image, matrix=halves, size=size, fill_value=0, dtype=types.FLOAT)


@no_type_check
def _resize(image: Any, numbers: Any, crop: CropConfig) -> Any:
    """Resize the grid, which fills the first rows and columns, to the crop."""
    grid = fn.cast(numbers[pixel_params.GRID_H : pixel_params.GRID_H + 2], dtype=types.INT32)
    sampled = fn.slice(image, start=[0, 0], shape=grid, axes=[1, 2])
    size = (crop.height, crop.width)
    return fn.resize(sampled, size=size, interp_type=types.INTERP_LINEAR, antialias=False)


@no_type_check
def _blur(image: Any, numbers: Any) -> Any:
    """Blur in the plane; the window is 2 * ceil(3 sigma) + 1 pixels."""
    return fn.gaussian_blur(image, sigma=math.max(numbers[pixel_params.BLUR_SIGMA], FAINTEST_BLUR))


@no_type_check
def _bias_field(number: Any, crop: CropConfig, device: str) -> Any:
    """Return exp of the polynomial in x and y, (1, h, w)."""
    y, x = np.meshgrid(_from_minus_one(crop.height), _from_minus_one(crop.width), indexing="ij")
    terms = [
        types.Constant(term[None].astype(np.float32), device=device) * number(pixel_params.BIAS + k)
        for k, term in enumerate((x, y, x * x, x * y, y * y))
    ]
    return math.exp(terms[0] + terms[1] + terms[2] + terms[3] + terms[4])


@no_type_check
def _gamma(image: Any, gamma: Any) -> Any:
    """Raise to a power; values below 0 become 0 unless gamma is 1."""
    off = fn.cast(gamma == np.float32(1), dtype=types.FLOAT)
    zero = np.float32(0)
    return math.pow(math.max(image, zero), gamma) + math.min(image, zero) * off


@no_type_check
def _add_noise(image: Any, numbers: Any, key: Any) -> Any:
    """Add normal noise by DALI's generator, seeded every step by the plan's keys.

    DALI takes the generator's state from the first view of a step, and one stream of it per view:
    the noise is the same wherever a run starts, as long as its steps are the same.
    """
    state = fn.cat(key, key, key, key)
    return fn.noise.gaussian(image, stddev=numbers[pixel_params.NOISE], _random_state=state)


@no_type_check
def _box(slices: Any, numbers: Any, crop: CropConfig, on_device: Any) -> Any:
    """Return 1 for the pixels of the cutout in present slices, else 0, (d, h, w).

    DALI's erase is not used: on a GPU it copies its boxes from memory that may have changed by
    then.
    """
    sizes = MOST_SLICES, crop.height, crop.width
    d, h, w = (types.Constant(np.arange(size, dtype=np.float32), device="cpu") for size in sizes)
    lines = []
    for axis, line in enumerate((d[0 : slices.shape()[0]], h, w)):
        start, stop = numbers[pixel_params.CUTOUT + axis], numbers[pixel_params.CUTOUT + 3 + axis]
        lines.append(fn.cast((line >= start) & (line < stop), dtype=types.FLOAT))
    in_d, in_h, in_w = (
        on_device(fn.reshape(line, shape=shape))
        for line, shape in zip(lines, ([-1, 1, 1], [1, -1, 1], [1, 1, -1]), strict=True)
    )
    return on_device(_present(slices)) * in_d * in_h * in_w


@no_type_check
def _present(slices: Any) -> Any:
    """Return 1 for present slices, else 0, (d, 1, 1)."""
    return fn.reshape(fn.cast(slices >= 0, dtype=types.FLOAT), shape=[-1, 1, 1])


def _from_minus_one(size: int) -> np.ndarray:
    """Return the coordinates of pixels from -1 to 1; 0 for a single one."""
    return np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
