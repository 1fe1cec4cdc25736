"""What a library is given to do, and where that is less than what lumbar does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from lumbar.cache.names import SERIES_TYPES
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan

MAX_SERIES = 64
"""Most series that a library reads: it prepares or loads all of them before its first batch."""

TAKEN_STEPS = {"rotation_degrees", "scale", "shift_mm", "brightness", "contrast"}
"""The augmentations that every library here does."""


@dataclass(frozen=True, slots=True)
class Task:
    """Series, box, augmentation and batch; it can be pickled, for it goes to worker processes."""

    root: Path
    rows: Sequence[int]
    crop: CropConfig
    augment: AugmentConfig
    batch: int
    seed: int


def slices_of(plan: Plan) -> int:
    """Return how many slices a sample of the plan's first batch has.

    With ``pick = "all"`` that is the deepest series' number, and other batches have others.
    """
    return len(plan.requests(0, 0)[0].views[0].slices)


def task_of(cache: Cache, plan: Plan) -> Task:
    """Return the task of a plan over samples of one series each, of one type.

    The box has as many slices as the plan's first batch. Pixels are those of the series type.
    """
    requests = plan.requests(0, 0)
    series_type = SERIES_TYPES[plan.samples.series_type[0, 0]]
    crop = plan.crop.model_copy(
        update={
            "slices": slices_of(plan),
            "pixel_mm": plan.crop.pixel_mm_of.get(series_type, plan.crop.pixel_mm),
        }
    )
    rows = [int(row) for row in plan.samples.row[:, 0]]
    return Task(
        root=cache.root,
        rows=spread_rows(rows, len(requests)),
        crop=crop,
        augment=plan.augment,
        batch=len(requests),
        seed=plan.seed,
    )


def spread_rows(rows: Sequence[int], batch: int) -> list[int]:
    """Return at most `MAX_SERIES` of some rows, evenly spread: whole batches, at least one."""
    count = max(min(len(rows), MAX_SERIES) // batch, 1) * batch
    return [rows[number * len(rows) // count] for number in range(count)]


def notes_on_libraries(plan: Plan) -> list[str]:
    """Say in sentences what to know when libraries are compared with lumbar on a plan."""
    read = len(spread_rows(range(len(plan.samples)), plan.batch))
    notes = [
        "The libraries are imported and prepare or load their series before their first batch, "
        "where alone that is counted."
    ]
    if read < len(plan.samples):
        notes.append(
            f"Because of that they read {read} of the {len(plan.samples):,} series, evenly spread."
        )
    left_out = left_out_steps(plan)
    if left_out:
        notes.append(
            "The libraries do less than the others, for their pipelines here leave out "
            f"{', '.join(left_out)}."
        )
    return notes


def left_out_steps(plan: Plan) -> list[str]:
    """Return what the configuration switches on and the libraries leave out, by its keys."""
    chosen = plan.augment.model_dump(exclude={*TAKEN_STEPS, "probability"})
    steps = [f"augment.{name}" for name, strength in chosen.items() if strength]
    return [*steps, "crop.centre"] if plan.crop.centre == "random" else steps


def read_at_pixel_size(cache: Cache, row: int, pixel_mm: float) -> Float32[np.ndarray, "d h w"]:
    """Return a volume, 0 to 1, its slices scaled to square pixels of ``pixel_mm``.

    The libraries' preprocessing does so once, ahead of training; all begin with its result.
    """
    entry = cache.series.row(row, named=True)
    volume_dhw = np.empty(_scaled_shape(entry, pixel_mm), np.float32)
    size_wh = volume_dhw.shape[:0:-1]
    for stored, scaled in zip(cache.volume(row), volume_dhw, strict=True):
        value = stored.astype(np.float32) * np.float32(entry["scale"]) + np.float32(entry["offset"])
        cv2.resize(value, size_wh, dst=scaled, interpolation=cv2.INTER_LINEAR)
    return volume_dhw


def bytes_in_memory(cache: Cache, task: Task) -> int:
    """Return what all volumes of a task take as `read_at_pixel_size` gives them."""
    entries = cache.series[list(task.rows)].iter_rows(named=True)
    shapes = [_scaled_shape(entry, task.crop.pixel_mm) for entry in entries]
    return sum(4 * depth * height * width for depth, height, width in shapes)


def _scaled_shape(entry: dict[str, Any], pixel_mm: float) -> tuple[int, int, int]:
    height = round(entry["height"] * entry["spacing_h_mm"] / pixel_mm)
    width = round(entry["width"] * entry["spacing_w_mm"] / pixel_mm)
    return entry["depth"], height, width
