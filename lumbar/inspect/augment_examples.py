"""Every augmentation by example: a series as it is, and as training gets it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int8

from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import CONDITION_GROUPS, CONDITIONS, LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.inspect.annotated import SHORT_NAMES
from lumbar.inspect.contact_sheet import direction_letter, position_text
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.plan.slices import NO_SLICE
from lumbar.train.plan.view import View
from lumbar.train.reader.batch import make_batch
from lumbar.train.reader.torch_dataset import PlanDataset

TILES = 5
"""Pictures beside each other: the series as it is, and four samples; or slices."""
PARTNERS = 3
"""Other series in the batch in which samples are mixed."""

ORIGINAL, ALL, AS_IT_IS = "original", "all", "as it is"


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One augmentation.

    ``key`` is its strength in `AugmentConfig` and ``unit`` the strength's; ``telling`` is a
    strength that shows what it does. ``when`` is when it happens: in every sample, in a share
    ``augment.probability`` of them, in a share of its own; or what it acts on: the slices of a
    series, the batch.
    """

    name: str
    key: str
    when: Literal["always", "sometimes", "mirror", "slices", "mix"]
    telling: float
    unit: str = ""

    def alone(self, augment: AugmentConfig) -> AugmentConfig:
        """Return the augmentation that has this one in every sample, and nothing else."""
        strength = 1.0 if self.when == "mirror" else getattr(augment, self.key) or self.telling
        values = dict.fromkeys(AugmentConfig.model_fields, 0.0)
        return AugmentConfig(**values | {self.key: strength, "probability": 1.0})

    def label(self, augment: AugmentConfig) -> str:
        """Name it and its key, and say where what is shown is not what is configured."""
        configured = getattr(augment, self.key)
        text = f"{self.name}   augment.{self.key} = {configured:g}{self.unit}"
        if not configured:
            shown = "" if self.when == "mirror" else f" at {self.telling:g}{self.unit}"
            return f"{text}: off, shown{shown} all the same"
        if self.when == "sometimes":
            return f"{text}, in {augment.probability:.0%} of the samples, here in all"
        return f"{text}: in {configured:.0%} of the samples" if self.when == "mirror" else text


AUGMENTATIONS = (
    Augmentation("rotation", "rotation_degrees", "always", 15.0, "°"),
    Augmentation("scale", "scale", "always", 0.25),
    Augmentation("shear", "shear_degrees", "always", 12.0, "°"),
    Augmentation("shift", "shift_mm", "always", 20.0, " mm"),
    Augmentation("side exchange", "side_exchange", "mirror", 1.0),
    Augmentation("mirror front-back", "mirror_front_back", "mirror", 1.0),
    Augmentation("mirror head-foot", "mirror_head_foot", "mirror", 1.0),
    Augmentation("brightness", "brightness", "always", 0.2),
    Augmentation("contrast", "contrast", "always", 0.4),
    Augmentation("gamma", "gamma", "sometimes", 0.8),
    Augmentation("bias field", "bias_field", "sometimes", 0.5),
    Augmentation("noise", "noise", "always", 0.1),
    Augmentation("blur", "blur_mm", "sometimes", 3.0, " mm"),
    Augmentation("low resolution", "low_resolution", "sometimes", 3.0),
    Augmentation("cutout", "cutout", "sometimes", 0.6),
    Augmentation("slice dropout", "slice_dropout", "slices", 0.3),
    Augmentation("mixup", "mixup", "mix", 1.0),
    Augmentation("cutmix", "cutmix", "mix", 1.0),
)
"""In the order of the sheet: geometry, mirrors, intensity, slices, batch."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture; ``letters`` are the patient's directions to its left, right, top and bottom.

    They are those of the tissue, so that a mirror exchanges them; an absent slice has none.
    """

    image_hw: Float32[np.ndarray, "h w"]
    title: str
    letters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """What is shown of one augmentation.

    The first line, or of a single line the first tile, is the series as it is. A mirror that leaves
    the order of the slices has pairs of tiles: as it is, and mirrored.
    """

    name: str
    label: str
    lines: tuple[tuple[Tile, ...], ...]


def sample_examples(
    cache: Cache, row: int, *, crop: CropConfig, augment: AugmentConfig, seed: int
) -> Iterator[Example]:
    """Yield the series of a row as it is, with each augmentation alone, and with all that are on.

    Every picture goes the way of training: plan, compiled function, batch. One augmentation alone
    always has the same slices and the same place of the crop.

    Raises
    ------
    FormatError, InputError
        If a volume or its metadata is damaged or gone.
    """
    series = _Series(cache, row, crop, seed)
    before = series.sample(AugmentConfig.none(), 0)
    yield Example(ORIGINAL, f"{ORIGINAL}   {series.name}", (series.strip(before, before, TILES),))
    for one in AUGMENTATIONS:
        label, alone = one.label(augment), one.alone(augment)
        match one.when:
            case "mirror":
                mirrored = series.sample(alone, 0)
                lines = _mirror_lines(series, before, mirrored)
                if one.key == "side_exchange":
                    label += f"\n{_targets(before, mirrored, series.attributes.series_type)}"
            case "slices":
                dropped = before, series.sample(alone, 0), series.sample(alone, 1)
                lines = tuple(series.strip(sample, before, 3 * TILES) for sample in dropped)
            case _:
                every = (series.sample(alone, epoch) for epoch in count())
                mixed = (s for s in every if one.when != "mix" or series.is_mixed(s))
                tiles = (series.tile(s, _strength(one, before, s)) for s in mixed)
                lines = ((series.tile(before, AS_IT_IS), *islice(tiles, TILES - 1)),)
        yield Example(one.name, label, lines)
    samples = tuple(series.sample(augment, epoch, shuffle=True) for epoch in range(TILES - 1))
    tiles = (series.tile(s, f"slice {s.view.slices[s.middle]}") for s in samples)
    on = ", ".join(one.name for one in AUGMENTATIONS if getattr(augment, one.key) > 0) or "nothing"
    label = f"{ALL} together, as in training\n{on}"
    yield Example(ALL, label, ((series.tile(before, AS_IT_IS), *tiles),))


@dataclass(frozen=True, slots=True)
class _Sample:
    """One sample: its pixels as training gets them, its view and its 25 grades.

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


class _Series:
    """One series of a cache as samples, and slices of these samples as tiles."""

    def __init__(self, cache: Cache, row: int, crop: CropConfig, seed: int) -> None:
        self.attributes = cache.attributes(row)
        self._cache, self._crop, self._seed = cache, crop, seed
        types = cache.series["series_type"]
        others = [other for other in range(len(types)) if other != row]
        same = [other for other in others if types[other] == types[row]]
        self._rows = [row, *(same or others)[:PARTNERS]]
        self._shape_hw = cache.series[[row]].select("height", "width").row(0)

    @property
    def name(self) -> str:
        """The names of study, series and type."""
        of = self.attributes
        return f"study {of.study_id}, series {of.series_id}, {of.series_type}"

    def sample(self, augment: AugmentConfig, epoch: int, *, shuffle: bool = False) -> _Sample:
        """Sample the series in an epoch of one step, in which it is mixed with its partners."""
        mixes = augment.mixup > 0 or augment.cutmix > 0
        samples = Samples.of_series(self._cache, self._rows if mixes else self._rows[:1])
        batch = len(samples)
        plan = Plan(samples, self._crop, augment, batch=batch, shuffle=shuffle, seed=self._seed)
        dataset = PlanDataset(self._cache, plan)
        dataset.set_epoch(epoch)
        images = [dataset[place]["image"] for place in range(batch)]
        requests, mix = plan.requests(epoch, 0), plan.mix(epoch, 0, batch)
        stacked = torch.stack([i for i in images if isinstance(i, torch.Tensor)])[:, :, 0]
        mixed = make_batch(stacked, requests, samples, device=torch.device("cpu"), mix=mix)
        place = [request.index for request in requests].index(0)
        is_mixed = mix is not None and mix.partner[place] != place
        return _Sample(
            image_dhw=mixed.image[place, :, 0].numpy(),
            view=requests[place].views[0],
            severity=requests[place].severity,
            share=float(mix.share[place]) if mix and is_mixed else 1.0,
            pixel_mm=self._crop.pixel_mm_for(self.attributes.series_type),
        )

    def is_mixed(self, sample: _Sample) -> bool:
        """Return false where a sample is mixed with itself, although there are others."""
        return sample.share < 1 or len(self._rows) == 1

    def tile(self, sample: _Sample, title: str, place: int | None = None) -> Tile:
        """Return a slice of a sample, the middle one if none is named."""
        place = sample.middle if place is None else place
        d = int(sample.view.slices[place])
        if d == NO_SLICE:
            return Tile(sample.image_dhw[place], title)
        down_lps, right_lps = self.attributes.stack_of(d).affine[:3, 1:3].T
        across, down = (
            right_lps * w + down_lps * h for w, h in sample.view.matrix[:, :2].T.astype(np.float64)
        )
        letters = tuple(map(direction_letter, (-across, across, -down, down)))
        return Tile(sample.image_dhw[place], title, letters)

    def strip(self, sample: _Sample, before: _Sample, most: int) -> tuple[Tile, ...]:
        """Return evenly spaced places of the slices that a sample has without augmentation.

        Each is named by its place in the patient, or by its index where the tiles are small.
        """
        places = np.unique(np.linspace(0, before.depth - 1, most).round().astype(int)).tolist()
        tiles = []
        for place in places:
            d = int(sample.view.slices[place])
            title = "none" if d == NO_SLICE else str(d)
            if d != NO_SLICE and most <= 2 * TILES:
                title = position_text(self.attributes.stack_of(d), d, self._shape_hw)
            tiles.append(self.tile(sample, title, place))
        return tuple(tiles)


def _strength(one: Augmentation, before: _Sample, sample: _Sample) -> str:
    """Say how strong an augmentation is in one sample."""
    intensity, pixel_mm = sample.view.intensity, sample.pixel_mm
    per_pixel = np.diag(before.view.matrix).astype(np.float64)
    moved_wh = (sample.view.matrix[:, 2] - before.view.matrix[:, 2]) / per_pixel * pixel_mm
    (xx, xy), (yx, _) = sample.view.matrix[:, :2] / per_pixel[:, None]
    d0, h0, w0, d1, h1, w1 = intensity.cutout_dhw
    coarser = sample.image_dhw.shape[1] / max(intensity.grid_hw[0], 1)
    return {
        "rotation_degrees": f"{math.degrees(math.atan2(yx, xx)):+.1f}°",
        "scale": f"times {1 / xx:.2f}" if xx else "",
        "shear_degrees": f"{math.degrees(math.atan(xy)):+.1f}°",
        "shift_mm": "{:+.1f}, {:+.1f} mm".format(*moved_wh),
        "brightness": f"{intensity.offset:+.2f}",
        "contrast": f"times {intensity.gain:.2f}",
        "gamma": f"exponent {intensity.gamma:.2f}",
        "bias_field": " ".join(f"{coefficient:+.1f}" for coefficient in intensity.bias),
        "noise": f"deviation {intensity.noise:.3f}",
        "blur_mm": f"deviation {intensity.blur_sigma * pixel_mm:.1f} mm",
        "low_resolution": f"pixels of {coarser * pixel_mm:.1f} mm",
        "cutout": f"{d1 - d0} x {h1 - h0} x {w1 - w0}",
    }.get(one.key, f"{sample.share:.0%} its own")


def _mirror_lines(
    series: _Series, before: _Sample, mirrored: _Sample
) -> tuple[tuple[Tile, ...], ...]:
    """Return strips where the order of the slices is mirrored, else pairs of pictures."""
    if (before.view.slices != mirrored.view.slices).any():
        return tuple(series.strip(sample, before, 2 * TILES) for sample in (before, mirrored))
    was, is_now = (series.strip(sample, before, TILES) for sample in (before, mirrored))
    middle = slice(len(was) // 2 - 1, len(was) // 2 + 1) if len(was) > 1 else slice(None)
    pairs = zip(was[middle], is_now[middle], strict=True)
    return (tuple(tile for pair in pairs for tile in pair),)


def _targets(before: _Sample, after: _Sample, series_type: SeriesType) -> str:
    """Say how the left and right targets of a series type change, level by level."""
    group = "subarticular" if series_type == SeriesType.AXIAL_T2 else "foraminal"
    conditions = CONDITION_GROUPS[group]
    if all((before.severity == UNKNOWN).tolist()):
        names = " and ".join(SHORT_NAMES[CONDITIONS[c]] for c in conditions)
        return f"left and right targets are exchanged with the pixels ({names}; unknown here)"
    was, becomes = (
        ", ".join(f"{SHORT_NAMES[CONDITIONS[c]]} {_grades(s.severity, c)}" for c in conditions)
        for s in (before, after)
    )
    return f"targets L1/L2 to L5/S1: {was}; exchanged: {becomes}"


def _grades(severity: Int8[np.ndarray, "25"], condition: int) -> str:
    """Return the grades of a condition, level by level: 0, 1, 2, or ? for an unknown one."""
    cells = severity.reshape(-1, len(LEVELS))[condition]
    return " ".join("?" if grade == UNKNOWN else str(grade) for grade in cells.tolist())
