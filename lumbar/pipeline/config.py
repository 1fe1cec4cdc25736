"""The options of ``lumbar preprocess`` that shape the cached bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lumbar.cache.format import Profile

Percent = Annotated[float, Field(ge=0, le=100)]


class PreprocessConfig(BaseModel):
    """How series become volumes.

    Attributes
    ----------
    grid
        ``fit`` scales the whole field of view to the canvas with isotropic pixels, ``spacing``
        gives every pixel ``spacing_mm`` and crops or pads, ``native`` keeps the pixels.
    size
        Side of the square canvas in pixels, for ``fit`` and ``spacing``.
    spacing_mm
        Millimetres per pixel, for ``spacing`` only.
    dtype
        Stored integer type.
    percentiles
        The percentiles of a series that become 0 and 1.
    profile
        ``fast`` stores uncompressed voxels, to be mapped into memory; ``archive`` compresses each
        slice. The voxels are the same.
    max_pixels
        Most rows x columns x frames of a file; a file that claims more is rejected before decoding.
        It bounds memory, changes no voxel, and is no part of the configuration's hash.
    decode
        ``gpu`` lets nvImageCodec decode the frames that it decodes without rounding, if there is
        CUDA. The values are the same; it is no part of the hash either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    grid: Literal["fit", "spacing", "native"] = "fit"
    size: Annotated[int, Field(ge=16, le=2048)] = 384
    spacing_mm: Annotated[float, Field(ge=0.05, le=20)] | None = None
    dtype: Literal["uint8", "int16"] = "uint8"
    percentiles: tuple[Percent, Percent] = (0.5, 99.5)
    profile: Profile = "fast"
    max_pixels: Annotated[int, Field(ge=1, exclude=True)] = 2**28
    decode: Annotated[Literal["cpu", "gpu"], Field(exclude=True)] = "cpu"

    @model_validator(mode="after")
    def _fields_agree(self) -> PreprocessConfig:
        if (self.spacing_mm is not None) != (self.grid == "spacing"):
            message = "spacing_mm with grid = 'spacing', and with no other grid"
            raise ValueError(message)
        if self.percentiles[0] >= self.percentiles[1]:
            message = "the first percentile has to be below the second"
            raise ValueError(message)
        return self
