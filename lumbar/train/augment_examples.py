"""Every augmentation by example: a series as it is, and as training gets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import Float32, Int8

from lumbar.cache.contact_sheet import SHORT_NAMES, direction_letter, position_text
from lumbar.cache.format import VolumeAttributes
from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import CONDITION_GROUPS, CONDITIONS, LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.augment import AugmentConfig
from lumbar.train.augment_steps import STEPS, Drawn, Step
from lumbar.train.batch import make_batch
from lumbar.train.compiled import DRAWN_BY
from lumbar.train.feed import prepare
from lumbar.train.geometry import CropConfig
from lumbar.train.plan import Plan
from lumbar.train.residency import open_volumes
from lumbar.train.samples import Samples
from lumbar.train.slices import NO_SLICE

TILES = 5
"""Pictures beside each other: the series as it is, and four draws; or slices."""
PARTNERS = 3
"""Other series in the batch in which samples are mixed."""

ORIGINAL, ALL = "original", "all"
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
    """What is shown of one step: lines of tiles, the first tile or the first line as it is."""

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
    rows = _with_partners(cache, row)
    attributes = cache.attributes(row)
    ((height, width),) = cache.series[[row]].select("height", "width").rows()

    def draw(augment: AugmentConfig, epoch: int, *, shuffle: bool = False) -> Drawn:
        mixed = augment.mixup > 0 or augment.cutmix > 0
        samples = Samples.of_series(cache, rows if mixed else rows[:1])
        n = len(samples)
        return _draw(
            cache, Plan(samples, crop, augment, batch=n, shuffle=shuffle, seed=seed), epoch
        )

    def tile(drawn: Drawn, title: str) -> Tile:
        return _tile(drawn, drawn.middle, attributes, title)

    def strip(drawn: Drawn, most: int) -> tuple[Tile, ...]:
        places = np.unique(np.linspace(0, before.depth - 1, most).round().astype(int)).tolist()
        return _strip(drawn, places, attributes, (height, width))

    before = draw(AugmentConfig.none(), 0)
    as_it_is = tile(before, "as it is")
    lines: tuple[tuple[Tile, ...], ...] = (strip(before, TILES),)
    yield Example(ORIGINAL, f"{ORIGINAL}   {_name(attributes)}", lines)
    for step in STEPS:
        alone, label = step.alone(augment), step.label(augment)
        match step.kind:
            case "mirror":
                mirrored = draw(alone, 0)
                if step.key == "side_exchange":
                    label += f"\n{_targets(before, mirrored, attributes.series_type)}"
                lines = tuple(strip(d, 2 * TILES) for d in (before, mirrored))
            case "slices":
                samples = (before, draw(alone, 0), draw(alone, 1))
                lines = tuple(strip(d, 3 * TILES) for d in samples)
            case _:
                draws = (draw(alone, epoch) for epoch in count())
                told = (d for d in draws if _tells(step, d, len(rows)))
                tiles = (tile(d, step.says(before, d)) for d in islice(told, TILES - 1))
                lines = ((as_it_is, *tiles),)
        yield Example(step.name, label, lines)
    draws = (draw(augment, epoch, shuffle=True) for epoch in range(TILES - 1))
    lines = ((as_it_is, *(tile(d, f"slice {d.view.slices[d.middle]}") for d in draws)),)
    on = ", ".join(step.name for step in STEPS if getattr(augment, step.key) > 0) or "nothing"
    yield Example(ALL, f"{ALL} together, as in training\n{on}", lines)


def _with_partners(cache: Cache, row: int) -> list[int]:
    """Return a row and those its series is mixed with: of its own type, or any if there is none."""
    kind = cache.series["series_type"]
    others = [other for other in range(len(kind)) if other != row]
    same = [other for other in others if kind[other] == kind[row]]
    return [row, *(same or others)[:PARTNERS]]


def _tells(step: Step, drawn: Drawn, n_series: int) -> bool:
    """Return false where a sample is mixed with itself, although there are others."""
    return step.kind != "mix" or n_series == 1 or drawn.share < 1


def _draw(cache: Cache, plan: Plan, epoch: int) -> Drawn:
    """Draw the first of a plan's samples in an epoch of one step."""
    table = cache.series
    volumes = open_volumes(cache, plan.samples.rows, tier="disk", device=CPU, threads=1)
    scale, offset = table["scale"].to_numpy(), table["offset"].to_numpy()
    try:
        step = prepare(plan, volumes, epoch, 0, scale=scale, offset=offset)
    finally:
        volumes.close()
    crop = plan.crop
    images = np.empty((*step.slices.shape, crop.height, crop.width), np.float32)
    for n, image in enumerate(images):
        # A copy: for a map, which may not be written to, the function would be compiled anew.
        volume = np.array(step.volumes[n])
        sample = step.slices[n], step.matrices[n], step.numbers[n], step.keys[n]
        DRAWN_BY[torch.float32](image, volume, *sample)
    tensor = torch.from_numpy(images)
    batch = make_batch(tensor, step.requests, plan.samples, device=CPU, mix=step.mix)
    place = [request.index for request in step.requests].index(0)
    mixed = step.mix is not None and step.mix.partner[place] != place
    series_type = SeriesType(table["series_type"][plan.samples.rows[0]])
    return Drawn(
        image_dhw=batch.image[place, :, 0].numpy(),
        view=step.requests[place].views[0],
        severity=step.requests[place].severity,
        share=float(step.mix.share[place]) if step.mix and mixed else 1.0,
        pixel_mm=crop.pixel_mm_of.get(series_type, crop.pixel_mm),
    )


def _strip(
    drawn: Drawn, places: list[int], attributes: VolumeAttributes, shape_hw: tuple[int, int]
) -> tuple[Tile, ...]:
    """Return some places of a sample; where they are few, with where in the patient each lies."""
    tiles = []
    for place in places:
        d = int(drawn.view.slices[place])
        title = "none" if d == NO_SLICE else f"{d}"
        if d != NO_SLICE and len(places) <= 2 * TILES:
            title = position_text(attributes.stack_of(d), d, shape_hw)
        tiles.append(_tile(drawn, place, attributes, title))
    return tuple(tiles)


def _tile(drawn: Drawn, place: int, attributes: VolumeAttributes, title: str) -> Tile:
    """Return one slice of a sample with the patient's directions at its edges."""
    d = int(drawn.view.slices[place])
    if d == NO_SLICE:
        return Tile(drawn.image_dhw[place], title)
    down_lps, right_lps = attributes.stack_of(d).affine[:3, 1:3].T
    across, down = (
        right_lps * w + down_lps * h for w, h in drawn.view.matrix[:, :2].T.astype(np.float64)
    )
    letters = tuple(map(direction_letter, (-across, across, -down, down)))
    return Tile(drawn.image_dhw[place], title, letters)


def _name(attributes: VolumeAttributes) -> str:
    return f"study {attributes.study_id}, series {attributes.series_id}, {attributes.series_type}"


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
