"""A picture of every augmentation of a configuration: ``lumbar inspect --augment``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumbar.cache.files.atomic import save_figure
from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import CONDITION_GROUPS, CONDITIONS, LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.inspect.annotated import SHORT_NAMES
from lumbar.inspect.contact_sheet import SHADE, direction_letter, position_text
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.plan.slices import NO_SLICE
from lumbar.train.plan.view import View
from lumbar.train.reader.batch import make_batch
from lumbar.train.reader.torch_dataset import PlanDataset

TILES = 5
"""Tiles in a row: the series without augmentation and four samples, or slices."""
PARTNERS = 3
"""Other series in the batch in which samples are mixed."""

ORIGINAL, ALL, AS_IT_IS = "original", "all", "as it is"

TILE_INCHES = 1.4
LABEL_INCHES = 0.42
TITLE_INCHES = 0.13
GAP_INCHES = 0.2
COLUMNS = 2
DPI = 110
LETTERS_FROM_INCHES = 0.5
"""Letters would cover smaller tiles."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One augmentation.

    ``key`` is its strength in `AugmentConfig`, in ``unit``; ``telling`` is a strength whose effect
    is easy to see. ``when`` is how often it happens, in all samples (always), in a share
    ``augment.probability`` of them (sometimes) or in a share of its own (mirror), or else what it
    acts on: the slices of a series, or the batch (mix).
    """

    name: str
    key: str
    when: Literal["always", "sometimes", "mirror", "slices", "mix"]
    telling: float
    unit: str = ""

    def alone(self, augment: AugmentConfig) -> AugmentConfig:
        """Return a configuration with only this augmentation, in every sample."""
        strength = 1.0 if self.when == "mirror" else getattr(augment, self.key) or self.telling
        values = dict.fromkeys(AugmentConfig.model_fields, 0.0)
        return AugmentConfig(**values | {self.key: strength, "probability": 1.0})

    def label(self, augment: AugmentConfig) -> str:
        """Return its name and configured strength, and how the shown strength differs."""
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
    """One picture; ``letters`` are the patient's directions at its left, right, top and bottom.

    They go with the tissue, so a mirror exchanges them; an absent slice has none.
    """

    image_hw: Float32[np.ndarray, "h w"]
    title: str
    letters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """The tiles of one augmentation.

    The first line, or the first tile of a single line, is the series without augmentation. A mirror
    that keeps the order of the slices has pairs of tiles: without and with it.
    """

    name: str
    label: str
    lines: tuple[tuple[Tile, ...], ...]


def augment_sheet(
    cache: Cache, row: int, out: Path, *, crop: CropConfig, augment: AugmentConfig, seed: int
) -> None:
    """Write a PNG with a row of tiles per augmentation of the series in a row of ``cache.series``.

    The samples are those of training with this crop and these strengths. An augmentation that is
    off is shown at a telling strength, and its label says so. Letters are patient directions.

    Raises
    ------
    FormatError, InputError
        If a volume or its metadata is damaged or gone.
    """
    examples = list(sample_examples(cache, row, crop=crop, augment=augment, seed=seed))
    per_column = -(-len(examples) // COLUMNS)
    column_inches, row_inches = TILES * TILE_INCHES + GAP_INCHES, LABEL_INCHES + TILE_INCHES
    width, height = COLUMNS * column_inches + GAP_INCHES, per_column * row_inches + GAP_INCHES
    # A Figure outside of pyplot is not kept open.
    figure = Figure(figsize=(width, height), facecolor="black")
    for number, example in enumerate(examples):
        column, place = divmod(number, per_column)
        left, top = GAP_INCHES + column * column_inches, height - place * row_inches
        label_y = (top - LABEL_INCHES + 0.04) / height
        figure.text(left / width, label_y, example.label, color="white", fontsize=7, va="bottom")
        corner = left / width, (top - row_inches) / height
        size = TILES * TILE_INCHES / width, TILE_INCHES / height
        draw_example(figure.add_axes((*corner, *size)), example)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, out, dpi=DPI)


def sample_examples(
    cache: Cache, row: int, *, crop: CropConfig, augment: AugmentConfig, seed: int
) -> Iterator[Example]:
    """Yield the series of a row without augmentation, with each one alone, and with all together.

    Every sample is made as in training, by plan, compiled function and batch. A single augmentation
    always has the same slices and the same place of the crop.

    Raises
    ------
    FormatError, InputError
        If a volume or its metadata is damaged or gone.
    """
    series = _Series(cache, row, crop, seed)
    before = series.sample(AugmentConfig.none(), 0)
    of = series.attributes
    label = f"{ORIGINAL}   study {of.study_id}, series {of.series_id}, {of.series_type}"
    yield Example(ORIGINAL, label, (series.strip(before, before, TILES),))
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
    """One sample: its pixels as in training, its view and its 25 grades.

    ``share`` is its own share after mixing, ``pixel_mm`` the size of a pixel.
    """

    image_dhw: Float32[np.ndarray, "d h w"]
    view: View
    severity: Int8[np.ndarray, "25"]
    share: float
    pixel_mm: float

    @property
    def depth(self) -> int:
        """Number of slices that are not absent; these come first."""
        return int((self.view.slices != NO_SLICE).sum())

    @property
    def middle(self) -> int:
        """Place of the slice to show: the middle of the cutout box, or of all slices."""
        first, _, _, stop, _, _ = self.view.intensity.cutout_dhw
        place = (first + stop) // 2 if stop > first else self.depth // 2
        return min(place, self.depth - 1)


class _Series:
    """One series of a cache: its samples, and slices of these as tiles."""

    def __init__(self, cache: Cache, row: int, crop: CropConfig, seed: int) -> None:
        self.attributes = cache.attributes(row)
        self._cache, self._crop, self._seed = cache, crop, seed
        types = cache.series["series_type"]
        others = [other for other in range(len(types)) if other != row]
        same = [other for other in others if types[other] == types[row]]
        self._rows = [row, *(same or others)[:PARTNERS]]
        self._shape_hw = cache.series[[row]].select("height", "width").row(0)

    def sample(self, augment: AugmentConfig, epoch: int, *, shuffle: bool = False) -> _Sample:
        """Sample the series in an epoch of one step; mixing is with its partners."""
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
        """Tell whether a sample is mixed with another one, if there are others."""
        return sample.share < 1 or len(self._rows) == 1

    def tile(self, sample: _Sample, title: str, place: int | None = None) -> Tile:
        """Return a slice of a sample as a tile, by default the middle one."""
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
        """Return evenly spaced slices of a sample, at places that have one without augmentation.

        Titles are positions in the patient, or indices where tiles are small.
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
    """Return how strong an augmentation is in one sample, as text."""
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
    """Return strips if the order of the slices is mirrored, else pairs of tiles."""
    if (before.view.slices != mirrored.view.slices).any():
        return tuple(series.strip(sample, before, 2 * TILES) for sample in (before, mirrored))
    was, is_now = (series.strip(sample, before, TILES) for sample in (before, mirrored))
    middle = slice(len(was) // 2 - 1, len(was) // 2 + 1) if len(was) > 1 else slice(None)
    pairs = zip(was[middle], is_now[middle], strict=True)
    return (tuple(tile for pair in pairs for tile in pair),)


def _targets(before: _Sample, after: _Sample, series_type: SeriesType) -> str:
    """Return how the left and right targets of a series type change, as text."""
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
    """Return the grades of a condition from L1/L2 to L5/S1: 0, 1, 2, or ? if unknown."""
    cells = severity.reshape(-1, len(LEVELS))[condition]
    return " ".join("?" if grade == UNKNOWN else str(grade) for grade in cells.tolist())


def draw_example(axes: Axes, example: Example) -> None:
    """Draw the tiles of an example into axes that are `TILES` tiles wide and one high."""
    axes.set_axis_off()
    line_height = TILE_INCHES / len(example.lines)
    for n, line in enumerate(example.lines):
        width = TILES * TILE_INCHES / max(len(line), TILES * len(example.lines))
        for place, tile in enumerate(line):
            _draw_tile(axes, tile, (place * width, n * line_height), (width, line_height))
    # At the end, because each picture changes the limits.
    axes.set_xlim(0, TILES * TILE_INCHES)
    axes.set_ylim(TILE_INCHES, 0)


def _draw_tile(
    axes: Axes, tile: Tile, corner_xy: tuple[float, float], size_xy: tuple[float, float]
) -> None:
    """Draw a tile into a box as large as fits, its title above it and letters at its edges."""
    height, width = tile.image_hw.shape
    room_x, room_y = size_xy[0] - 0.03, size_xy[1] - TITLE_INCHES
    inches = min(room_x / width, room_y / height)
    left, top = corner_xy[0] + (room_x - inches * width) / 2, corner_xy[1] + TITLE_INCHES
    right, bottom = left + inches * width, top + inches * height
    extent = left, right, bottom, top
    axes.imshow(tile.image_hw, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    axes.text(middle_x, top - 0.02, tile.title, color="white", fontsize=5, ha="center", va="bottom")
    if min(inches * width, inches * height) < LETTERS_FROM_INCHES:
        return
    places = (
        (left, middle_y, "left", "center"),
        (right, middle_y, "right", "center"),
        (middle_x, top, "center", "top"),
        (middle_x, bottom, "center", "bottom"),
    )
    for (x, y, ha, va), letter in zip(places, tile.letters, strict=False):
        axes.text(x, y, letter, color="#7fd4ff", fontsize=5, ha=ha, va=va, bbox=SHADE)
