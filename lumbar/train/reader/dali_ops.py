"""The steps of a sample as DALI operators, for a GPU: the same numbers in the same order.

`lumbar.train.kernels` is the compiled way to the same pixels and has the definition of every step.
Noise alone differs: it is DALI's own. A step whose strength is 0 is not in the graph at all. Each
operator reads and writes all pixels once, so the default augmentation has few of them. The CPU runs
this graph too, slowly, for tests.
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
"""In pixels: the sigma that stands for none, since DALI wants one above 0."""


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
    """Draw views from their picked slices (d, height, width, 1); return (d, h, w) float32.

    What the host holds is copied to the device here, once a step; what is the same in every step
    lies there. Sizes and matrices stay on the host, where DALI wants them.
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
    """Sample the crop, or with a coarser matrix its grid and beyond; outside of the source is 0."""
    # DALI's pixel centres lie at halves, ours at whole numbers.
    shift = 0.5 - 0.5 * (matrix[:, 0:1] + matrix[:, 1:2])
    halves = fn.cat(matrix[:, 0:2], matrix[:, 2:3] + shift, axis=1)
    size = (crop.height, crop.width)
    return fn.warp_affine(image, matrix=halves, size=size, fill_value=0, dtype=types.FLOAT)


@no_type_check
def _resize(image: Any, numbers: Any, crop: CropConfig) -> Any:
    """Bring the grid, which fills the first rows and columns, to the crop's size."""
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
    """Raise what is above 0 to a power; what is below becomes 0, but for a gamma of 1."""
    off = fn.cast(gamma == np.float32(1), dtype=types.FLOAT)
    zero = np.float32(0)
    return math.pow(math.max(image, zero), gamma) + math.min(image, zero) * off


@no_type_check
def _add_noise(image: Any, numbers: Any, key: Any) -> Any:
    """Add normal noise by DALI's generator, started anew each step from the plan's keys.

    DALI takes the state of the generator from the first view of a step, and a stream of it for each
    view: so a run draws the same noise wherever it starts, as long as its steps are the same.
    """
    state = fn.cat(key, key, key, key)
    return fn.noise.gaussian(image, stddev=numbers[pixel_params.NOISE], _random_state=state)


@no_type_check
def _box(slices: Any, numbers: Any, crop: CropConfig, on_device: Any) -> Any:
    """Return 1 for the pixels of the cutout's box in slices that are there, else 0, (d, h, w).

    DALI's erase is not used: on a GPU it copies its boxes from memory that may have changed by the
    time of the copy.
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
    """Return 1 for slices that are there, else 0, (d, 1, 1)."""
    return fn.reshape(fn.cast(slices >= 0, dtype=types.FLOAT), shape=[-1, 1, 1])


def _from_minus_one(size: int) -> np.ndarray:
    """Return the places of pixels from -1 to 1, of a single one 0."""
    return np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
