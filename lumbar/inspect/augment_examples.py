"""Every augmentation by example: a series as it is, and as training gets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import Float32, Int8

from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import CONDITION_GROUPS, CONDITIONS, LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.inspect.annotated import SHORT_NAMES
from lumbar.inspect.augment_steps import STEPS, Drawn
from lumbar.inspect.contact_sheet import direction_letter, position_text
from lumbar.train.kernels.render import RENDERERS
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.plan.slices import NO_SLICE
from lumbar.train.reader.batch import make_batch
from lumbar.train.reader.prefetch import PreparedStep, prepare_step
from lumbar.train.reader.volumes import open_volumes

TILES = 5
"""Pictures beside each other: the series as it is, and four draws; or slices."""
PARTNERS = 3
"""Other series in the batch in which samples are mixed."""

ORIGINAL, ALL, AS_IT_IS = "original", "all", "as it is"
CPU = torch.device("cpu")


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
    """What is shown of one step.

    Of the lines or, where there is one, of its tiles the first is the series as it is. A mirror
    that leaves the order of the slices has pairs of tiles: as it is, and mirrored.
    """

    name: str
    label: str
    lines: tuple[tuple[Tile, ...], ...]


def draw_examples(
    cache: Cache, row: int, *, crop: CropConfig, augment: AugmentConfig, seed: int
) -> Iterator[Example]:
    """Yield the series of a row as it is, with each step alone, and with all that are on.

    Every picture goes the way of training: plan, compiled function, batch. A step alone always has
    the same slices and the same place of the crop.

    Raises
    ------
    FormatError, InputError
        If a volume or its metadata is damaged or gone.
    """
    series = _Series(cache, row, crop, seed)
    before = series.draw(AugmentConfig.none(), 0)
    yield Example(ORIGINAL, f"{ORIGINAL}   {series.name}", (series.strip(before, before, TILES),))
    for step in STEPS:
        label, alone = step.label(augment), step.alone(augment)
        match step.kind:
            case "mirror":
                mirrored = series.draw(alone, 0)
                lines = _mirror_lines(series, before, mirrored)
                if step.key == "side_exchange":
                    label += f"\n{_targets(before, mirrored, series.attributes.series_type)}"
            case "slices":
                samples = before, series.draw(alone, 0), series.draw(alone, 1)
                lines = tuple(series.strip(drawn, before, 3 * TILES) for drawn in samples)
            case _:
                draws = (series.draw(alone, epoch) for epoch in count())
                told = (d for d in draws if step.kind != "mix" or series.is_mixed(d))
                tiles = (series.tile(d, step.says(before, d)) for d in islice(told, TILES - 1))
                lines = ((series.tile(before, AS_IT_IS), *tiles),)
        yield Example(step.name, label, lines)
    draws = (series.draw(augment, epoch, shuffle=True) for epoch in range(TILES - 1))
    tiles = (series.tile(d, f"slice {d.view.slices[d.middle]}") for d in draws)
    on = ", ".join(step.name for step in STEPS if getattr(augment, step.key) > 0) or "nothing"
    label = f"{ALL} together, as in training\n{on}"
    yield Example(ALL, label, ((series.tile(before, AS_IT_IS), *tiles),))


class _Series:
    """One series of a cache as samples, and slices of these samples as tiles."""

    def __init__(self, cache: Cache, row: int, crop: CropConfig, seed: int) -> None:
        self.attributes = cache.attributes(row)
        self._cache = cache
        self._crop = crop
        self._seed = seed
        kind = cache.series["series_type"]
        others = [other for other in range(len(kind)) if other != row]
        same = [other for other in others if kind[other] == kind[row]]
        self._rows = [row, *(same or others)[:PARTNERS]]
        ((height, width),) = cache.series[[row]].select("height", "width").rows()
        self._shape_hw = height, width

    @property
    def name(self) -> str:
        """The names of study, series and type."""
        of = self.attributes
        return f"study {of.study_id}, series {of.series_id}, {of.series_type}"

    def draw(self, augment: AugmentConfig, epoch: int, *, shuffle: bool = False) -> Drawn:
        """Draw the series in an epoch of one step, in which it is mixed with its partners."""
        mixes = augment.mixup > 0 or augment.cutmix > 0
        samples = Samples.of_series(self._cache, self._rows if mixes else self._rows[:1])
        plan = Plan(
            samples,
            self._crop,
            augment,
            batch=len(samples),
            shuffle=shuffle,
            seed=self._seed,
        )
        step = self._prepare(plan, epoch)
        images = np.empty((*step.slices.shape, self._crop.height, self._crop.width), np.float32)
        for n, image in enumerate(images):
            # A copy: for a map, which may not be written to, the function would be compiled anew.
            volume = np.array(step.volumes[n])
            sample = step.slices[n], step.matrices[n], step.numbers[n], step.keys[n]
            RENDERERS["float32"](image, volume, *sample)
        tensor = torch.from_numpy(images)
        batch = make_batch(tensor, step.requests, samples, device=CPU, mix=step.mix)
        place = [request.index for request in step.requests].index(0)
        mixed = step.mix is not None and step.mix.partner[place] != place
        return Drawn(
            image_dhw=batch.image[place, :, 0].numpy(),
            view=step.requests[place].views[0],
            severity=step.requests[place].severity,
            share=float(step.mix.share[place]) if step.mix and mixed else 1.0,
            pixel_mm=self._crop.pixel_mm_for(self.attributes.series_type),
        )

    def _prepare(self, plan: Plan, epoch: int) -> PreparedStep:
        volumes = open_volumes(self._cache, plan.samples.rows, tier="disk", device=CPU, threads=1)
        try:
            return prepare_step(plan, self._cache, volumes, epoch, 0)
        finally:
            volumes.close()

    def is_mixed(self, drawn: Drawn) -> bool:
        """Return false where a sample is mixed with itself, although there are others."""
        return drawn.share < 1 or len(self._rows) == 1

    def tile(self, drawn: Drawn, title: str, place: int | None = None) -> Tile:
        """Return a slice of a sample, the middle one if none is named."""
        place = drawn.middle if place is None else place
        d = int(drawn.view.slices[place])
        if d == NO_SLICE:
            return Tile(drawn.image_dhw[place], title)
        down_lps, right_lps = self.attributes.stack_of(d).affine[:3, 1:3].T
        across, down = (
            right_lps * w + down_lps * h for w, h in drawn.view.matrix[:, :2].T.astype(np.float64)
        )
        letters = tuple(map(direction_letter, (-across, across, -down, down)))
        return Tile(drawn.image_dhw[place], title, letters)

    def strip(self, drawn: Drawn, before: Drawn, most: int) -> tuple[Tile, ...]:
        """Return evenly spaced places of the slices that a sample has without any step.

        Each is named by its place in the patient, or by its index where the tiles are small.
        """
        places = np.unique(np.linspace(0, before.depth - 1, most).round().astype(int)).tolist()
        tiles = []
        for place in places:
            d = int(drawn.view.slices[place])
            title = "none" if d == NO_SLICE else str(d)
            if d != NO_SLICE and most <= 2 * TILES:
                title = position_text(self.attributes.stack_of(d), d, self._shape_hw)
            tiles.append(self.tile(drawn, title, place))
        return tuple(tiles)


def _mirror_lines(series: _Series, before: Drawn, mirrored: Drawn) -> tuple[tuple[Tile, ...], ...]:
    """Return strips where the order of the slices is mirrored, else pairs of pictures."""
    if (before.view.slices != mirrored.view.slices).any():
        return tuple(series.strip(drawn, before, 2 * TILES) for drawn in (before, mirrored))
    was, is_now = (series.strip(drawn, before, TILES) for drawn in (before, mirrored))
    middle = slice(len(was) // 2 - 1, len(was) // 2 + 1) if len(was) > 1 else slice(None)
    pairs = zip(was[middle], is_now[middle], strict=True)
    return (tuple(tile for pair in pairs for tile in pair),)


def _targets(before: Drawn, after: Drawn, series_type: SeriesType) -> str:
    """Say how the left and right targets of a series type change, level by level."""
    group = "subarticular" if series_type == SeriesType.AXIAL_T2 else "foraminal"
    conditions = CONDITION_GROUPS[group]
    if all((before.severity == UNKNOWN).tolist()):
        names = " and ".join(SHORT_NAMES[CONDITIONS[c]] for c in conditions)
        return f"left and right targets are exchanged with the pixels ({names}; unknown here)"
    was, becomes = (
        ", ".join(f"{SHORT_NAMES[CONDITIONS[c]]} {_grades(d.severity, c)}" for c in conditions)
        for d in (before, after)
    )
    return f"targets L1/L2 to L5/S1: {was}; exchanged: {becomes}"


def _grades(severity: Int8[np.ndarray, "25"], condition: int) -> str:
    """Return the grades of a condition, level by level: 0, 1, 2, or ? for an unknown one."""
    cells = severity.reshape(-1, len(LEVELS))[condition]
    return " ".join("?" if grade == UNKNOWN else str(grade) for grade in cells.tolist())
