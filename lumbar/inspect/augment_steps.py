"""The augmentations one by one: how an example of each is drawn, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int8

from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.slices import NO_SLICE
from lumbar.train.plan.view import View


@dataclass(frozen=True, slots=True)
class Drawn:
    """One sample: its pixels as training gets them, its view and the 25 grades it goes with.

    ``share`` is how much of it is its own after mixing, ``pixel_mm`` the size of a pixel.
    """

    image_dhw: Float32[np.ndarray, "d h w"]
    view: View
    severity: Int8[np.ndarray, "25"]
    share: float
    pixel_mm: float

    @property
    def depth(self) -> int:
        """How many slices are there; they come first."""
        return int((self.view.slices != NO_SLICE).sum())

    @property
    def middle(self) -> int:
        """The place of the slice to show: the middle of the box that is cut out, or of all."""
        first, _, _, stop, _, _ = self.view.intensity.cutout_dhw
        place = (first + stop) // 2 if stop > first else self.depth // 2
        return min(place, self.depth - 1)


Kind = Literal["always", "sometimes", "mirror", "slices", "mix"]
"""When a step happens: in every sample, with ``augment.probability``, with its own; or what it acts
on: the slices, the batch."""


@dataclass(frozen=True, slots=True)
class Step:
    """One augmentation.

    ``key`` is its strength in `AugmentConfig` and ``unit`` the strength's; ``telling`` is a
    strength that shows what it does. ``says`` tells what was drawn, from the sample without and
    with the step.
    """

    name: str
    key: str
    kind: Kind
    telling: float
    says: Callable[[Drawn, Drawn], str]
    unit: str = ""

    def strength(self, augment: AugmentConfig) -> float:
        """Return the strength to show: that of the configuration, or a telling one if it is off."""
        configured: float = getattr(augment, self.key)
        if self.kind == "mirror":
            return 1.0
        return configured or self.telling

    def alone(self, augment: AugmentConfig) -> AugmentConfig:
        """Return the augmentation that has this step in every sample, and nothing else."""
        values = dict.fromkeys(AugmentConfig.model_fields, 0.0)
        return AugmentConfig(**values | {self.key: self.strength(augment), "probability": 1.0})

    def label(self, augment: AugmentConfig) -> str:
        """Name the step and its key, and say where what is shown is not what is configured."""
        configured = getattr(augment, self.key)
        said = f"{self.name}   augment.{self.key} = {configured:g}{self.unit}"
        if not configured:
            shown = "" if self.kind == "mirror" else f" at {self.telling:g}{self.unit}"
            return f"{said}: off, shown{shown} all the same"
        if self.kind == "sometimes":
            return f"{said}, in {augment.probability:.0%} of the samples, here in all"
        if self.kind == "mirror":
            return f"{said}: in {configured:.0%} of the samples"
        return said


def _linear(before: Drawn, drawn: Drawn) -> Float64[np.ndarray, "2 2"]:
    """Return the map in pixels of the crop, without its shift: the identity if nothing is on."""
    per_pixel = np.diag(before.view.matrix).astype(np.float64)
    linear: np.ndarray = drawn.view.matrix[:, :2] / per_pixel[:, None]
    return linear


def _rotation(before: Drawn, drawn: Drawn) -> str:
    linear = _linear(before, drawn)
    return f"{math.degrees(math.atan2(linear[1, 0], linear[0, 0])):+.1f}°"


def _scale(before: Drawn, drawn: Drawn) -> str:
    return f"times {1 / _linear(before, drawn)[0, 0]:.2f}"


def _shear(before: Drawn, drawn: Drawn) -> str:
    return f"{math.degrees(math.atan(_linear(before, drawn)[0, 1])):+.1f}°"


def _shift(before: Drawn, drawn: Drawn) -> str:
    moved_wh = drawn.view.matrix[:, 2] - before.view.matrix[:, 2]
    right_mm, down_mm = moved_wh / np.diag(before.view.matrix) * drawn.pixel_mm
    return f"{right_mm:+.1f}, {down_mm:+.1f} mm"


def _nothing(_: Drawn, __: Drawn) -> str:
    return ""


def _brightness(_: Drawn, drawn: Drawn) -> str:
    return f"{drawn.view.intensity.offset:+.2f}"


def _contrast(_: Drawn, drawn: Drawn) -> str:
    return f"times {drawn.view.intensity.gain:.2f}"


def _gamma(_: Drawn, drawn: Drawn) -> str:
    return f"exponent {drawn.view.intensity.gamma:.2f}"


def _bias_field(_: Drawn, drawn: Drawn) -> str:
    return " ".join(f"{coefficient:+.1f}" for coefficient in drawn.view.intensity.bias)


def _noise(_: Drawn, drawn: Drawn) -> str:
    return f"deviation {drawn.view.intensity.noise:.3f}"


def _blur(_: Drawn, drawn: Drawn) -> str:
    return f"deviation {drawn.view.intensity.blur_sigma * drawn.pixel_mm:.1f} mm"


def _low_resolution(_: Drawn, drawn: Drawn) -> str:
    coarser = drawn.image_dhw.shape[1] / drawn.view.intensity.grid_hw[0]
    return f"pixels of {coarser * drawn.pixel_mm:.1f} mm"


def _cutout(_: Drawn, drawn: Drawn) -> str:
    d0, h0, w0, d1, h1, w1 = drawn.view.intensity.cutout_dhw
    return f"{d1 - d0} x {h1 - h0} x {w1 - w0}"


def _share(_: Drawn, drawn: Drawn) -> str:
    return f"{drawn.share:.0%} its own"


STEPS = (
    Step("rotation", "rotation_degrees", "always", 15.0, _rotation, "°"),
    Step("scale", "scale", "always", 0.25, _scale),
    Step("shear", "shear_degrees", "always", 12.0, _shear, "°"),
    Step("shift", "shift_mm", "always", 20.0, _shift, " mm"),
    Step("side exchange", "side_exchange", "mirror", 1.0, _nothing),
    Step("mirror front-back", "mirror_front_back", "mirror", 1.0, _nothing),
    Step("mirror head-foot", "mirror_head_foot", "mirror", 1.0, _nothing),
    Step("brightness", "brightness", "always", 0.2, _brightness),
    Step("contrast", "contrast", "always", 0.4, _contrast),
    Step("gamma", "gamma", "sometimes", 0.8, _gamma),
    Step("bias field", "bias_field", "sometimes", 0.5, _bias_field),
    Step("noise", "noise", "always", 0.1, _noise),
    Step("blur", "blur_mm", "sometimes", 3.0, _blur, " mm"),
    Step("low resolution", "low_resolution", "sometimes", 3.0, _low_resolution),
    Step("cutout", "cutout", "sometimes", 0.6, _cutout),
    Step("slice dropout", "slice_dropout", "slices", 0.3, _nothing),
    Step("mixup", "mixup", "mix", 1.0, _share),
    Step("cutmix", "cutmix", "mix", 1.0, _share),
)
"""In the order of the sheet: geometry, mirrors, intensity, slices, batch."""
