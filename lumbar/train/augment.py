"""How far a training sample may differ from the image, and the numbers drawn for one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt32
from pydantic import BaseModel, ConfigDict, Field

from lumbar.train import numbers

N_DRAWS = 48
"""More than a sample ever draws; what is left over is not missed."""
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


class Draws:
    """Uniform numbers, drawn at once and handed out in order.

    Every sample asks for the same numbers in the same order, whatever is switched on, so that a
    step that is switched on changes no other.
    """

    def __init__(self, seed: tuple[int, ...]) -> None:
        self._rng = np.random.default_rng(seed)
        self._numbers = iter(self._rng.random(N_DRAWS).tolist())

    def unit(self) -> float:
        """Return a number from 0 to 1."""
        return float(next(self._numbers))

    def units(self, n: int) -> Float64[np.ndarray, " n"]:
        """Return ``n`` more numbers from 0 to 1, beside those handed out one by one."""
        return self._rng.random(n)

    def within(self, reach: float) -> float:
        """Return a number from ``-reach`` to ``reach``."""
        return reach * (2 * self.unit() - 1)

    def factor(self, reach: float) -> float:
        """Return a factor from ``1 / (1 + reach)`` to ``1 + reach``, as often above 1 as below."""
        return float((1 + reach) ** self.within(1.0))

    def happens(self, probability: float) -> bool:
        """Return true with a probability."""
        return self.unit() < probability

    def bits(self) -> int:
        """Return 32 random bits."""
        return int(self.unit() * 2**32)


@dataclass(frozen=True, slots=True)
class Intensity:
    """The numbers of one sample's intensity steps; the defaults change nothing.

    `lumbar.train.numbers` says in which order the steps act and what each number means.
    ``grid_hw`` is the grid that is sampled before it is brought to the crop's size; ``cutout_dhw``
    is (d0, h0, w0, d1, h1, w1), an empty box by default; the noise is a function of ``key``.
    """

    grid_hw: tuple[int, int]
    gain: float = 1.0
    offset: float = 0.0
    blur_sigma: float = 0.0
    bias: tuple[float, ...] = (0.0,) * N_BIAS
    gamma: float = 1.0
    noise: float = 0.0
    cutout_dhw: tuple[int, ...] = (0,) * 6
    key: tuple[int, int] = (0, 0)

    def packed(self, scale: float = 1.0, offset: float = 0.0) -> Float32[np.ndarray, "18"]:
        """Return the numbers for stored values that mean ``stored * scale + offset``."""
        packed = np.empty(numbers.COUNT, np.float32)
        packed[numbers.GAIN] = scale * self.gain
        packed[numbers.OFFSET] = offset * self.gain + self.offset
        packed[numbers.GRID_H], packed[numbers.GRID_W] = self.grid_hw
        packed[numbers.BLUR_SIGMA] = self.blur_sigma
        packed[numbers.BIAS : numbers.BIAS + N_BIAS] = self.bias
        packed[numbers.GAMMA] = self.gamma
        packed[numbers.NOISE] = self.noise
        packed[numbers.CUTOUT : numbers.CUTOUT + 6] = self.cutout_dhw
        return packed

    def packed_key(self) -> UInt32[np.ndarray, "2"]:
        """Return the key of the noise."""
        return np.array(self.key, np.uint32)


def draw_intensity(
    augment: AugmentConfig, shape_dhw: tuple[int, int, int], pixel_mm: float, draws: Draws
) -> Intensity:
    """Draw the numbers of a sample of ``shape_dhw`` voxels."""
    contrast, brightness = draws.within(augment.contrast), draws.within(augment.brightness)
    noise, key = draws.unit() * augment.noise, (draws.bits(), draws.bits())
    gamma = draws.factor(augment.gamma)
    bias = tuple(draws.within(augment.bias_field) for _ in range(N_BIAS))
    blur_mm = draws.unit() * augment.blur_mm
    coarser = 1 + draws.unit() * augment.low_resolution
    box = _draw_box(augment.cutout, shape_dhw, draws)
    bends, fades, blurs, coarsens, cuts = (draws.happens(augment.probability) for _ in range(5))
    if not coarsens:
        coarser = 1.0
    _, height, width = shape_dhw
    return Intensity(
        grid_hw=(max(1, round(height / coarser)), max(1, round(width / coarser))),
        gain=1 + contrast,
        offset=brightness,
        blur_sigma=blur_mm / pixel_mm if blurs else 0.0,
        bias=bias if fades else (0.0,) * N_BIAS,
        gamma=gamma if bends else 1.0,
        noise=noise,
        cutout_dhw=box if cuts else (0,) * 6,
        key=key,
    )


def _draw_box(strength: float, shape_dhw: tuple[int, int, int], draws: Draws) -> tuple[int, ...]:
    """Draw a box of up to ``strength`` of each side, wholly inside; (start, stop) of d, h, w."""
    starts, stops = [], []
    for size in shape_dhw:
        length = round(draws.unit() * strength * size)
        start = int(draws.unit() * (size - length + 1))
        starts.append(start)
        stops.append(start + length)
    return (*starts, *stops)
