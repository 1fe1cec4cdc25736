"""Configuration of the network that finds discs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.slices import MOST_SLICES

AUGMENT = AugmentConfig(
    rotation_degrees=10,
    scale=0.15,
    shift_mm=20,
    brightness=0.1,
    contrast=0.2,
    noise=0.03,
)
"""Scale and shift vary more than rotation: fields of view differ more than postures."""


class LocatorConfig(BaseModel):
    """The small network that finds the discs of a series, for models of single discs.

    Its input is the whole field of view: ``slices`` evenly spaced slices of ``height`` x ``width``
    pixels of ``pixel_mm``. Discs outside of this box cannot be found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(15, ge=1)
    batch: int = Field(8, ge=1)
    lr: float = Field(2e-3, gt=0)
    slices: int = Field(24, ge=1, le=MOST_SLICES)
    height: int = Field(128, ge=32)
    width: int = Field(96, ge=32)
    pixel_mm: float = Field(3.0, gt=0)

    @property
    def crop(self) -> CropConfig:
        """The box of the reader."""
        return CropConfig(
            slices=self.slices, height=self.height, width=self.width, pixel_mm=self.pixel_mm
        )
