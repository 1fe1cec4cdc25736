"""Compare a reader's images with the compiled pass: a check of the path to the GPU.

A GPU can train on memory that was not written yet, without any error. So some views are compared
with those that the host renders from the same numbers.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32

from lumbar.cache.errors import LumbarError
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import Matrix
from lumbar.train.plan.pixel_params import CUTOUT, NOISE, OFFSET
from lumbar.train.plan.slices import compacted
from lumbar.train.reader.dali_numba import as_rendered, renderer_of
from lumbar.train.reader.prefetch import PreparedStep

VIEWS = 8
"""Views per step that are compared, evenly spaced from the first to the last."""
PIXEL = 2e-3
"""Tolerance of a pixel of DALI's operators against the compiled pass: both interpolate in single
precision, at places that differ by at most `PLACE`, in volumes of 0 to 1."""
PLACE, VALUE = 1e-4, 1e-6
"""Rounding errors of single precision, in pixels and in normalised values. Gamma and the bias field
can amplify them without limit."""
BFLOAT16 = 2.0**-8
"""Relative rounding error where images are in bfloat16."""
SIGMAS, FARTHEST = 6.0, 8.0
"""Standard errors by which the mean and spread of noise may be off, and standard deviations beyond
which no voxel's noise lies: each is exceeded at most once in a million steps."""

_CURE = {
    "gpu": "use --draw cpu --tier disk, or --device cpu where there is no --draw; run "
    "`lumbar doctor`, and report it",
    "cpu": "use --device cpu, run `lumbar doctor`, and report it",
}
"""What to do, by where the pixels were rendered."""


class WrongPixelsError(LumbarError):
    """A reader's pixels differ from its plan."""


def check_pixels(
    images: torch.Tensor, step: PreparedStep, *, augment: AugmentConfig, draw: Literal["cpu", "gpu"]
) -> None:
    """Compare some views of a step's images (v, d, h, w) with the compiled pass on the host.

    Pixels of the compiled pass must have the same bits. Those of DALI's operators must lie within
    `PIXEL`, plus `PLACE` and `VALUE` amplified by gamma and the bias field; DALI's own noise must
    have the mean and the spread of the plan.

    Raises
    ------
    WrongPixelsError
        For the first view that differs; it names the view and by how much.
    """
    last = len(step.volumes) - 1
    for view in sorted({round(k * last / (VIEWS - 1)) for k in range(VIEWS)}):
        image = images[view].cpu()
        if draw == "cpu":
            wanted = _render(step, view, image, augment, (step.matrices[view], step.numbers[view]))
            # Bits, since NaN is not equal to itself.
            fault = "" if torch.equal(_bits(image), _bits(wanted)) else "other bits"
        else:
            fault = _difference(step, view, image, augment)
        if fault:
            raise WrongPixelsError(
                what="a reader's pixels differ from its plan",
                where=f"view {view} of a step, rendered on the {draw.upper()}, on {images.device}",
                got=fault,
                expected="the pixels of the compiled pass on the host",
                cure=_CURE[draw],
            )


def _difference(step: PreparedStep, view: int, image: torch.Tensor, augment: AugmentConfig) -> str:
    """Return how a view of DALI's operators differs from the plan, or an empty text."""
    numbers = step.numbers[view].copy()
    sigma = float(numbers[NOISE])
    numbers[NOISE] = 0
    like = image.to(torch.float32)
    wanted = _render(step, view, like, augment, (step.matrices[view], numbers)).numpy()
    rounding = BFLOAT16 if image.dtype == torch.bfloat16 else 0.0
    away = like.numpy() - wanted
    allowed = PIXEL + rounding * (np.abs(wanted) + FARTHEST * sigma)
    if augment.gamma or augment.bias_field:
        allowed = allowed + _enlarged_rounding(step, view, numbers, like, augment)
    noisy = _noisy(step, view, wanted) & (sigma > 0)
    farthest = np.abs(away) - allowed - FARTHEST * sigma * noisy
    if not (farthest <= 0).all():
        return f"a pixel off by {np.abs(away).max():.4g}"
    if not noisy.any():
        return ""
    # A tolerated difference changes mean and spread by at most its root mean square.
    of_noise, slack = away[noisy], float(np.sqrt(np.square(allowed[noisy]).mean()))
    mean, spread = float(of_noise.mean()), float(of_noise.std())
    error = sigma * SIGMAS / np.sqrt(of_noise.size)
    if abs(mean) > error + slack or abs(spread - sigma) > error + slack:
        return f"noise of {mean:.4g} ± {spread:.4g}, where the plan has 0 ± {sigma:.4g}"
    return ""


def _enlarged_rounding(
    step: PreparedStep,
    view: int,
    numbers: Float32[np.ndarray, " k"],
    like: torch.Tensor,
    augment: AugmentConfig,
) -> Float32[np.ndarray, "d h w"]:
    """Return how much each pixel changes by rounding errors of places and values."""
    nearby = []
    for x, y in product((-PLACE, PLACE), repeat=2):
        matrix, moved = step.matrices[view].copy(), numbers.copy()
        matrix[:, 2] += np.array([x, y], np.float32)
        moved[OFFSET] += np.copysign(VALUE, x)
        nearby.append(_render(step, view, like, augment, (matrix, moved)).numpy())
    change: Float32[np.ndarray, "d h w"] = np.ptp(nearby, axis=0)
    return change


def _render(
    step: PreparedStep,
    view: int,
    like: torch.Tensor,
    augment: AugmentConfig,
    how: tuple[Matrix, Float32[np.ndarray, " k"]],
) -> torch.Tensor:
    """Render one view by the compiled pass, in the type and shape of ``like``.

    ``how`` are the matrix and the numbers.
    """
    matrix, numbers = how
    function, bits = renderer_of(like.dtype, light=augment.is_light)
    out = np.empty(like.shape, bits)
    picked, places = compacted(step.slices[view])
    volume = step.volumes[view]
    if isinstance(volume, torch.Tensor):
        volume = volume.cpu().numpy()
    # A copy of the slices: numba would compile another function for a read-only map.
    function(out, volume[picked], places, matrix, numbers, step.keys[view])
    return as_rendered(torch.from_numpy(out), like.dtype)


def _noisy(
    step: PreparedStep, view: int, wanted: Float32[np.ndarray, "d h w"]
) -> Bool[np.ndarray, "d h w"]:
    """Return which voxels have noise: those of present slices outside of the cutout."""
    noisy = np.broadcast_to((step.slices[view] >= 0)[:, None, None], wanted.shape).copy()
    d0, h0, w0, d1, h1, w1 = step.numbers[view][CUTOUT : CUTOUT + 6].astype(int)
    noisy[d0:d1, h0:h1, w0:w1] = False
    return noisy


def _bits(image: torch.Tensor) -> torch.Tensor:
    return image.view(torch.int32 if image.dtype == torch.float32 else torch.int16)
