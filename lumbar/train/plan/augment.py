"""Configuration of augmentation, and the random numbers of its intensity steps."""

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

    Geometry, applied to every sample: ``rotation_degrees``, ``scale`` (0.1: from 1/1.1 to 1.1),
    ``shear_degrees`` and ``shift_mm`` are the maximum in each direction.

    Mirrors, by their probability: ``side_exchange`` mirrors the patient's left and right and
    exchanges the left and right targets; ``mirror_front_back`` and ``mirror_head_foot`` leave the
    sides as they are. All are off by default.

    Intensity, applied to every sample, in normalised values: ``brightness`` is added, ``contrast``
    is multiplied, ``noise`` is the maximum standard deviation. With ``probability`` each: ``gamma``
    (0.3: from 1/1.3 to 1.3), ``bias_field`` (maximum coefficient of its logarithm), ``blur_mm``
    (maximum standard deviation), ``low_resolution`` (1: pixels up to twice as large) and ``cutout``
    (maximum side of the box, as a part of the crop's).

    ``slice_dropout`` is the probability of leaving out each slice; at least one stays. ``mixup``
    and ``cutmix`` are the parameter of the Beta distribution of the shares; with both on, each
    batch has one or the other.
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
        """Whether a sample is rendered in one pass: no filter over neighbours, no powers."""
        return not (self.gamma or self.bias_field or self.blur_mm or self.low_resolution)

    @classmethod
    def none(cls) -> AugmentConfig:
        """Return the augmentation that changes nothing, for evaluation."""
        return cls(**dict.fromkeys(cls.model_fields, 0.0))


@dataclass(frozen=True, slots=True)
class Intensity:
    """The numbers of one sample's intensity steps by their names.

    `lumbar.train.plan.pixel_params` has the order of the steps and the meaning of each number.
    ``grid_hw`` is the grid that is sampled and then resized to the crop; ``cutout_dhw`` is
    (d0, h0, w0, d1, h1, w1); the noise is a function of ``key``.
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
    def of(cls, numbers: Float64[np.ndarray, "18"], key: UInt32[np.ndarray, "2"]) -> Intensity:
        """Name the numbers of a sample."""
        values = numbers.tolist()
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
    """Return the numbers that switch every step off, for a sample of ``size_hw`` pixels."""
    numbers = np.zeros(pixel_params.COUNT)
    numbers[[pixel_params.GAIN, pixel_params.GAMMA]] = 1
    numbers[[pixel_params.GRID_H, pixel_params.GRID_W]] = size_hw
    return numbers


def for_stored(
    numbers: Float64[np.ndarray, "*v 18"],
    scale: float | Float64[np.ndarray, "*v"],
    offset: float | Float64[np.ndarray, "*v"],
) -> Float32[np.ndarray, "*v 18"]:
    """Fold a storage scale into the numbers: a stored value means ``stored * scale + offset``."""
    folded = numbers.copy()
    folded[..., pixel_params.OFFSET] += offset * numbers[..., pixel_params.GAIN]
    folded[..., pixel_params.GAIN] *= scale
    return folded.astype(np.float32)


def sample_intensity(
    augment: AugmentConfig,
    depth: Int64[np.ndarray, " v"],
    size_hw: tuple[int, int],
    pixel_mm: Float64[np.ndarray, " v"],
    uniform: UniformNumbers,
) -> tuple[Float64[np.ndarray, "v 18"], UInt32[np.ndarray, "v 2"]]:
    """Sample the numbers of views of ``depth`` slices of ``size_hw`` pixels, and their keys."""
    contrast, brightness = uniform.within(augment.contrast), uniform.within(augment.brightness)
    noise, keys = uniform.unit() * augment.noise, np.stack([uniform.bits(), uniform.bits()], axis=1)
    gamma = uniform.factor(augment.gamma)
    bias = np.stack([uniform.within(augment.bias_field) for _ in range(N_BIAS)], axis=1)
    blur_mm = uniform.unit() * augment.blur_mm
    coarser = 1 + uniform.unit() * augment.low_resolution
    boxes = _sample_boxes(augment.cutout, depth, size_hw, uniform)
    has_gamma, has_bias, has_blur, has_low_resolution, has_cutout = (
        uniform.happens(augment.probability) for _ in range(5)
    )
    grid_hw = np.array(size_hw) / np.where(has_low_resolution, coarser, 1)[:, None]
    numbers = np.empty((len(depth), pixel_params.COUNT))
    numbers[:, pixel_params.GAIN] = 1 + contrast
    numbers[:, pixel_params.OFFSET] = brightness
    numbers[:, pixel_params.GRID_H : pixel_params.GRID_W + 1] = np.maximum(np.rint(grid_hw), 1)
    numbers[:, pixel_params.BLUR_SIGMA] = np.where(has_blur, blur_mm / pixel_mm, 0)
    numbers[:, pixel_params.BIAS : pixel_params.BIAS + N_BIAS] = np.where(
        has_bias[:, None], bias, 0
    )
    numbers[:, pixel_params.GAMMA] = np.where(has_gamma, gamma, 1)
    numbers[:, pixel_params.NOISE] = noise
    numbers[:, pixel_params.CUTOUT : pixel_params.CUTOUT + 6] = np.where(
        has_cutout[:, None], boxes, 0
    )
    return numbers, keys


def _sample_boxes(
    strength: float,
    depth: Int64[np.ndarray, " v"],
    size_hw: tuple[int, int],
    uniform: UniformNumbers,
) -> Float64[np.ndarray, "v 6"]:
    """Sample boxes inside the crop of up to ``strength`` of each side: starts, then stops."""
    boxes = np.empty((len(depth), 6))
    sides = (depth, *(np.full_like(depth, size) for size in size_hw))
    for axis, size in enumerate(sides):
        length = np.rint(uniform.unit() * strength * size)
        boxes[:, axis] = np.floor(uniform.unit() * (size - length + 1))
        boxes[:, 3 + axis] = boxes[:, axis] + length
    return boxes
