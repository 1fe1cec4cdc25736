"""Which slices, which crop, which numbers: the plan of an epoch, with neither torch nor DALI.

A plan is a pure function of (seed, epoch, step, rank, world): asking twice gives the same
requests, so a run can start again at any step, and order is tested with integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int32, Int64
from pydantic import BaseModel, ConfigDict, Field

from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import EXCHANGED_CELLS
from lumbar.train.samples import SeriesSet

NO_SLICE = -1
MAX_NOISE_SEED = 2**24
"""Seeds travel as float32, which holds whole numbers up to here."""


class CropConfig(BaseModel):
    """The box that every sample fills: slices, and pixels of ``pixel_mm`` millimetres."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slices: int = Field(16, ge=1)
    height: int = Field(256, ge=16)
    width: int = Field(256, ge=16)
    pixel_mm: float = Field(1.0, gt=0)


class AugmentConfig(BaseModel):
    """How far a training sample may differ from the image; 0 switches a step off.

    ``side_exchange`` is the probability of mirroring the patient, left and right targets with the
    pixels. It is off by default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation_degrees: float = Field(8.0, ge=0, le=180)
    scale: float = Field(0.1, ge=0, lt=1)
    shift_mm: float = Field(8.0, ge=0)
    brightness: float = Field(0.1, ge=0)
    contrast: float = Field(0.2, ge=0, lt=1)
    noise: float = Field(0.02, ge=0)
    side_exchange: float = Field(0.0, ge=0, le=1)

    @classmethod
    def none(cls) -> AugmentConfig:
        """Return the augmentation that changes nothing, for evaluation."""
        return cls(**dict.fromkeys(cls.model_fields, 0.0))


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to read.

    ``slices`` are indices into the volume, `NO_SLICE` at the end where there are fewer than the
    box holds; ``position`` is where each lies in the stack, 0 to 1, in the order in which the model
    sees them. ``matrix`` maps output pixels ``(w, h, 1)`` to source pixels ``(w, h)``, centres at
    whole numbers. The value becomes ``normalised * gain + offset + noise * standard normal``.
    ``severity`` is what the sample shows after any exchange of sides. A ``filler`` keeps the number
    of steps equal over the ranks and is known nowhere.
    """

    row: int
    slices: Int32[np.ndarray, " d"]
    position: Float32[np.ndarray, " d"]
    matrix: Float32[np.ndarray, "2 3"]
    severity: Int8[np.ndarray, "25"]
    gain: float = 1.0
    offset: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0
    sides_exchanged: bool = False
    filler: bool = False


class Plan:
    """The requests of every step of every epoch, for one rank.

    Parameters
    ----------
    series
        What to draw from.
    crop, augment
        The box and the strengths.
    batch
        Samples a step on this rank.
    shuffle
        True for training: a new order and new slices every epoch. False: the order of ``series``,
        and evenly spaced slices.
    seed, rank, world
        The ranks of one seed share the series of an epoch without loss or doubling.
    """

    def __init__(
        self,
        series: SeriesSet,
        crop: CropConfig,
        augment: AugmentConfig,
        *,
        batch: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.series = series
        self.crop = crop
        self.augment = augment
        self.batch = batch
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self._order = lru_cache(maxsize=2)(self._draw_order)

    @property
    def steps(self) -> int:
        """Steps an epoch, the same for every rank."""
        return -(-len(self.series) // (self.batch * self.world))

    def requests(self, epoch: int, step: int) -> list[Request]:
        """Return this rank's part of one step; at least one request, if only a filler."""
        start = step * self.batch * self.world
        together = self._order(epoch)[start : start + self.batch * self.world]
        mine = together[self.rank :: self.world]
        if len(mine) == 0:
            return [replace(self._request(epoch, 0), severity=_unknown(), filler=True)]
        return [self._request(epoch, int(index)) for index in mine]

    def _draw_order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        if not self.shuffle:
            return np.arange(len(self.series))
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.series))

    def _request(self, epoch: int, index: int) -> Request:
        row = int(self.series.row[index])
        rng = np.random.default_rng((self.seed, epoch, row))
        depth, height, width = map(int, self.series.shape[index])
        slices = pick_slices(depth, self.crop.slices, rng if self.shuffle else None)
        request = Request(
            row=row,
            slices=slices,
            position=np.where(slices >= 0, (slices + 0.5) / depth, 0).astype(np.float32),
            matrix=draw_matrix(
                self.crop, self.augment, (height, width), self.series.spacing_mm[index], rng
            ),
            severity=self.series.severity[index],
            gain=1 + rng.uniform(-self.augment.contrast, self.augment.contrast),
            offset=rng.uniform(-self.augment.brightness, self.augment.brightness),
            noise=rng.uniform(0, self.augment.noise),
            noise_seed=int(rng.integers(MAX_NOISE_SEED)),
        )
        if rng.random() < self.augment.side_exchange:
            return exchange_sides(request, int(self.series.lateral_axis[index]), self.crop)
        return request


def pick_slices(
    depth: int, wanted: int, rng: np.random.Generator | None
) -> Int32[np.ndarray, " d"]:
    """Choose ``wanted`` slices of ``depth``, in order, evenly spaced.

    With a generator the whole comb is shifted at random within one step, so that no slice comes
    twice; else each slice is the middle of its stretch. A shallower stack is taken whole and filled
    up with `NO_SLICE`.
    """
    slices = np.full(wanted, NO_SLICE, np.int32)
    if depth <= wanted:
        slices[:depth] = np.arange(depth)
        return slices
    within = 0.5 if rng is None else rng.random()
    drawn = (np.arange(wanted) + within) * (depth / wanted)
    # Rounding can carry a draw just below 1 to the end of the stack, one past its last slice.
    slices[:] = np.minimum(drawn, depth - 1)
    return slices


def draw_matrix(
    crop: CropConfig,
    augment: AugmentConfig,
    source_hw: tuple[int, int],
    spacing_mm: Float64[np.ndarray, "2"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "2 3"]:
    """Return the map from output to source pixels: crop, scale, rotation and shift in one.

    Rotation and scale are those of the patient's millimetres, whatever the pixel spacing.
    """
    angle = np.deg2rad(rng.uniform(-augment.rotation_degrees, augment.rotation_degrees))
    zoom = np.exp(rng.uniform(-1, 1) * np.log1p(augment.scale))
    shift_mm = rng.uniform(-augment.shift_mm, augment.shift_mm, size=2)
    pixels_per_mm = 1 / spacing_mm[::-1]
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = pixels_per_mm[:, None] * rotation * (crop.pixel_mm * zoom)
    source_centre = (np.array([source_hw[1], source_hw[0]]) - 1) / 2
    output_centre = (np.array([crop.width, crop.height]) - 1) / 2
    translation = source_centre + shift_mm * pixels_per_mm - linear @ output_centre
    return np.column_stack([linear, translation]).astype(np.float32)


def exchange_sides(request: Request, lateral_axis: int, crop: CropConfig) -> Request:
    """Mirror the patient, and with the pixels the left and right targets.

    The axis that runs from side to side is reversed: the slices of a sagittal stack, the columns of
    an axial one. This is the only place where sides change.
    """
    slices, position, matrix = request.slices, request.position, request.matrix
    if lateral_axis == 0:
        present = slices != NO_SLICE
        slices, position = slices.copy(), position.copy()
        slices[present] = slices[present][::-1]
        position[present] = 1 - position[present][::-1]
    else:
        size = crop.height if lateral_axis == 1 else crop.width
        mirror = np.eye(3)
        across = 1 if lateral_axis == 1 else 0
        mirror[across, across], mirror[across, 2] = -1, size - 1
        matrix = (matrix @ mirror).astype(np.float32)
    return replace(
        request,
        slices=slices,
        position=position,
        matrix=matrix,
        severity=request.severity[list(EXCHANGED_CELLS)],
        sides_exchanged=not request.sides_exchanged,
    )


def _unknown() -> Int8[np.ndarray, "25"]:
    return np.full(len(EXCHANGED_CELLS), UNKNOWN, np.int8)
