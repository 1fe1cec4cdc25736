"""How far a training sample may differ from the image, and the numbers drawn for one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt32
from pydantic import BaseModel, ConfigDict, Field

from lumbar.train.plan import pixel_params
from lumbar.train.plan.random_numbers import UniformNumbers

N_BIAS = 5
"""Coefficients of the bias field: x, y, x*x, x*y, y*y."""


class AugmentConfig(BaseModel):
    """How far a training sample may differ from the image; 0 switches a step off.

    Geometry, always drawn when it is on: ``rotation_degrees``, ``scale`` (0.1: from 1/1.1 to 1.1),
    ``shear_degrees`` and ``shift_mm`` are the greatest in each direction.

    Mirrors, by their probability: ``side_exchange`` mirrors the patient's left and right, and the
    left and right targets with the pixels; ``mirror_front_back`` and ``mirror_head_foot`` change no
    side. All are off by default.

    Intensity, always drawn when it is on: ``brightness`` is added, ``contrast`` is multiplied,
    ``noise`` is the greatest standard deviation, all in normalised values. ``gamma`` (0.3: from
    1/1.3 to 1.3), ``bias_field`` (greatest coefficient of its logarithm), ``blur_mm`` (greatest
    standard deviation), ``low_resolution`` (1: pixels up to twice as large) and ``cutout`` (the
    greatest side of the box, as a part of the crop's) each happen with ``probability``.

    ``slice_dropout`` is the probability of each slice to be left out; one always stays. ``mixup``
    and ``cutmix`` are the parameter of the Beta distribution that shares are drawn from; with both
    on, each batch has one or the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rotation_degrees: float = Field(8.0, ge=0, le=180)
    scale: float = Field(0.1, ge=0, lt=1)
    shear_degrees: float = Field(0.0, ge=0, le=45)
    shift_mm: float = Field(8.0, ge=0, le=1000)
    side_exchange: float = Field(0.0, ge=0, le=1)
    mirror_front_back: float = Field(0.0, ge=0, le=1)
    mirror_head_foot: float = Field(0.0, ge=0, le=1)
    brightness: float = Field(0.1, ge=0, le=10)
    contrast: float = Field(0.2, ge=0, lt=1)
    noise: float = Field(0.02, ge=0, le=10)
    gamma: float = Field(0.0, ge=0, le=10)
    bias_field: float = Field(0.0, ge=0, le=5)
    blur_mm: float = Field(0.0, ge=0, le=20)
    low_resolution: float = Field(0.0, ge=0, le=15)
    cutout: float = Field(0.0, ge=0, le=1)
    probability: float = Field(0.5, ge=0, le=1)
    slice_dropout: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0, le=100)
    cutmix: float = Field(0.0, ge=0, le=100)

    @property
    def is_light(self) -> bool:
        """Whether a sample is drawn in one pass: no neighbours of a pixel, no powers."""
        return not (self.gamma or self.bias_field or self.blur_mm or self.low_resolution)

    @classmethod
    def none(cls) -> AugmentConfig:
        """Return the augmentation that changes nothing, for evaluation."""
        return cls(**dict.fromkeys(cls.model_fields, 0.0))


@dataclass(frozen=True, slots=True)
class Intensity:
    """The numbers of one sample's intensity steps by their names.

    `lumbar.train.plan.pixel_params` says in which order the steps act and what each number means.
    ``grid_hw`` is the grid that is sampled before it is brought to the crop's size; ``cutout_dhw``
    is (d0, h0, w0, d1, h1, w1); the noise is a function of ``key``.
    """

    grid_hw: tuple[int, int]
    gain: float
    offset: float
    blur_sigma: float
    bias: tuple[float, ...]
    gamma: float
    noise: float
    cutout_dhw: tuple[int, ...]
    key: tuple[int, int]

    @classmethod
    def of(cls, drawn: Float64[np.ndarray, "18"], key: UInt32[np.ndarray, "2"]) -> Intensity:
        """Name the numbers that were drawn for a sample."""
        values = drawn.tolist()
        grid_h, grid_w = values[pixel_params.GRID_H : pixel_params.GRID_W + 1]
        key_0, key_1 = key.tolist()
        return cls(
            grid_hw=(int(grid_h), int(grid_w)),
            gain=values[pixel_params.GAIN],
            offset=values[pixel_params.OFFSET],
            blur_sigma=values[pixel_params.BLUR_SIGMA],
            bias=tuple(values[pixel_params.BIAS : pixel_params.BIAS + N_BIAS]),
            gamma=values[pixel_params.GAMMA],
            noise=values[pixel_params.NOISE],
            cutout_dhw=tuple(map(int, values[pixel_params.CUTOUT : pixel_params.CUTOUT + 6])),
            key=(key_0, key_1),
        )


def unchanged(size_hw: tuple[int, int]) -> Float64[np.ndarray, "18"]:
    """Return the numbers with which no step changes a sample of ``size_hw`` pixels."""
    nothing = np.zeros(pixel_params.COUNT)
    nothing[[pixel_params.GAIN, pixel_params.GAMMA]] = 1
    nothing[[pixel_params.GRID_H, pixel_params.GRID_W]] = size_hw
    return nothing


def for_stored(
    drawn: Float64[np.ndarray, "*v 18"],
    scale: float | Float64[np.ndarray, "*v"],
    offset: float | Float64[np.ndarray, "*v"],
) -> Float32[np.ndarray, "*v 18"]:
    """Return drawn numbers for stored values that mean ``stored * scale + offset``."""
    folded = drawn.copy()
    folded[..., pixel_params.OFFSET] += offset * drawn[..., pixel_params.GAIN]
    folded[..., pixel_params.GAIN] *= scale
    return folded.astype(np.float32)


def sample_intensity(
    augment: AugmentConfig,
    depth: Int64[np.ndarray, " v"],
    size_hw: tuple[int, int],
    pixel_mm: Float64[np.ndarray, " v"],
    uniform: UniformNumbers,
) -> tuple[Float64[np.ndarray, "v 18"], UInt32[np.ndarray, "v 2"]]:
    """Draw the numbers of samples of ``depth`` slices of ``size_hw`` pixels, and their keys."""
    contrast, brightness = uniform.within(augment.contrast), uniform.within(augment.brightness)
    noise, keys = uniform.unit() * augment.noise, np.stack([uniform.bits(), uniform.bits()], axis=1)
    gamma = uniform.factor(augment.gamma)
    bias = np.stack([uniform.within(augment.bias_field) for _ in range(N_BIAS)], axis=1)
    blur_mm = uniform.unit() * augment.blur_mm
    coarser = 1 + uniform.unit() * augment.low_resolution
    boxes = _draw_boxes(augment.cutout, depth, size_hw, uniform)
    bends, fades, blurs, coarsens, cuts = (uniform.happens(augment.probability) for _ in range(5))
    grid_hw = np.array(size_hw) / np.where(coarsens, coarser, 1)[:, None]
    drawn = np.empty((len(depth), pixel_params.COUNT))
    drawn[:, pixel_params.GAIN] = 1 + contrast
    drawn[:, pixel_params.OFFSET] = brightness
    drawn[:, pixel_params.GRID_H : pixel_params.GRID_W + 1] = np.maximum(np.rint(grid_hw), 1)
    drawn[:, pixel_params.BLUR_SIGMA] = np.where(blurs, blur_mm / pixel_mm, 0)
    drawn[:, pixel_params.BIAS : pixel_params.BIAS + N_BIAS] = np.where(fades[:, None], bias, 0)
    drawn[:, pixel_params.GAMMA] = np.where(bends, gamma, 1)
    drawn[:, pixel_params.NOISE] = noise
    drawn[:, pixel_params.CUTOUT : pixel_params.CUTOUT + 6] = np.where(cuts[:, None], boxes, 0)
    return drawn, keys


def _draw_boxes(
    strength: float,
    depth: Int64[np.ndarray, " v"],
    size_hw: tuple[int, int],
    uniform: UniformNumbers,
) -> Float64[np.ndarray, "v 6"]:
    """Draw boxes of up to ``strength`` of each side, wholly inside; (start, stop) of d, h, w."""
    boxes = np.empty((len(depth), 6))
    sides = (depth, *(np.full_like(depth, size) for size in size_hw))
    for axis, size in enumerate(sides):
        length = np.rint(uniform.unit() * strength * size)
        boxes[:, axis] = np.floor(uniform.unit() * (size - length + 1))
        boxes[:, 3 + axis] = boxes[:, axis] + length
    return boxes
