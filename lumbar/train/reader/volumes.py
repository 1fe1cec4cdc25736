"""The volumes of a plan: mapped from disk, decompressed ahead, or resident on the device."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, assert_never

import numpy as np
import torch
from jaxtyping import Int32, Int64, Shaped

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.device_tensors import to_device
from lumbar.train.plan.slices import Slices, compacted
from lumbar.train.plan.view import View
from lumbar.train.reader.placement import free_bytes, stored_bytes

ROOM = 0.9
"""The part of a device's free memory that volumes may fill with ``--tier device``."""

SliceShape = tuple[str, int, int]
"""Type, height and width of stored slices."""

Loading = Iterator[tuple[int, int]]
"""Bytes loaded so far, and bytes in all."""


class MappedVolumes:
    """Memory maps of an uncompressed cache, with read-ahead."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._read: set[int] = set()
        self._faults = 0

    def fetch(self, views: Sequence[View]) -> tuple[list[Any], list[Slices]]:
        """Return the maps of the views' series."""
        # A volume that was read is in the page cache, unless page faults tell otherwise.
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        for view in views:
            if view.row not in self._read or faults > self._faults:
                self._cache.read_ahead(view.row, view.slices)
        self._read.update(view.row for view in views)
        self._faults = faults
        return [self._cache.volume(view.row) for view in views], [view.slices for view in views]

    def load(self) -> Loading:
        """Load nothing: pages are read on demand."""
        yield from ()

    def close(self) -> None:
        """Do nothing: the cache owns the maps."""


class DecompressedVolumes:
    """The slices of a compressed cache, decompressed by threads."""

    def __init__(self, cache: Cache, threads: int) -> None:
        self._cache = cache
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="lumbar-decompress")

    def fetch(self, views: Sequence[View]) -> tuple[list[Any], list[Slices]]:
        """Return arrays of only the views' slices, in their order."""
        picked, places = zip(*(compacted(view.slices) for view in views), strict=True)
        volumes = self._workers.map(self._cache.slices, (view.row for view in views), picked)
        return list(volumes), list(places)

    def load(self) -> Loading:
        """Load nothing: slices are decompressed on demand."""
        yield from ()

    def close(self) -> None:
        """End the threads."""
        self._workers.shutdown(cancel_futures=True)


class ResidentVolumes:
    """All volumes of some rows in the memory of a device, as stored integers, loaded once.

    Volumes with slices of one size lie in one tensor, so that the slices of a step are gathered by
    one kernel.

    Raises
    ------
    InputError
        If the volumes need more than `ROOM` of the device's free memory.
    """

    def __init__(self, cache: Cache, rows: Sequence[int], device: torch.device) -> None:
        self._cache = cache
        self._rows = list(rows)
        self._device = device
        self._total = stored_bytes(cache, rows)
        _require_room(device, self._total)
        self._slices_of: dict[SliceShape, torch.Tensor] = {}
        self._place: dict[int, tuple[SliceShape, int, int]] = {}

    @property
    def on_gpu(self) -> bool:
        """Whether the host cannot read the volumes."""
        return self._device.type == "cuda"

    def load(self) -> Loading:
        """Load every volume, and yield the progress after each."""
        self._reserve()
        done = 0
        for row in self._rows:
            volume = np.array(self._cache.volume(row))
            self._volume(row).copy_(torch.from_numpy(volume))
            done += volume.nbytes
            yield done, self._total

    def fetch(self, views: Sequence[View]) -> tuple[list[Any], list[Slices]]:
        """Return the resident volumes of the views' series: arrays, or tensors of a GPU."""
        volumes = [self._volume(view.row) for view in views]
        slices = [view.slices for view in views]
        return (volumes if self.on_gpu else [v.numpy() for v in volumes]), slices

    def pick(self, rows: Sequence[int], slices: Int32[np.ndarray, "v d"]) -> list[torch.Tensor]:
        """Gather the slices (d, height, width, 1) of each row, without making the host wait.

        An absent slice is replaced by the volume's first.
        """
        views_of: dict[SliceShape, list[int]] = {}
        for number, row in enumerate(rows):
            views_of.setdefault(self._place[row][0], []).append(number)
        picked: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        for kind, numbers in views_of.items():
            first = np.array([self._place[rows[number]][1] for number in numbers])
            places = first[:, None] + np.maximum(slices[numbers], 0)
            chosen = to_device(torch.from_numpy(places.ravel()), self._device)
            gathered = _gathered(self._slices_of[kind], chosen)
            views = gathered.view(*places.shape, *gathered.shape[1:], 1).unbind()
            for number, view in zip(numbers, views, strict=True):
                picked[number] = view
        return picked

    def close(self) -> None:
        """Free the memory."""
        self._slices_of.clear()

    def _reserve(self) -> None:
        """Assign every volume its place, and allocate the memory."""
        table = self._cache.series.select("dtype", "height", "width", "depth").rows()
        counts: dict[SliceShape, int] = {}
        for row in self._rows:
            name, height, width, depth = table[row]
            kind = name, height, width
            first = counts.get(kind, 0)
            self._place[row] = kind, first, depth
            counts[kind] = first + depth
        for (name, height, width), count in counts.items():
            dtype = torch.from_numpy(np.empty(0, name)).dtype
            size = count, height, width
            self._slices_of[name, height, width] = torch.empty(
                size, dtype=dtype, device=self._device
            )

    def _volume(self, row: int) -> torch.Tensor:
        kind, first, depth = self._place[row]
        return self._slices_of[kind][first : first + depth]


Volumes = MappedVolumes | DecompressedVolumes | ResidentVolumes
"""``fetch`` gives, per view, a volume and the slices to take from it."""


def open_volumes(
    cache: Cache,
    rows: Sequence[int],
    *,
    tier: Literal["disk", "device"],
    device: torch.device,
    threads: int,
) -> Volumes:
    """Return the volumes of a tier; call ``load`` before ``fetch``."""
    match tier:
        case "device":
            return ResidentVolumes(cache, rows, device)
        case "disk":
            pass
        case _:
            assert_never(tier)
    match cache.profile:
        case "archive":
            return DecompressedVolumes(cache, threads)
        case "fast":
            return MappedVolumes(cache)
        case _:
            assert_never(cache.profile)


def _require_room(device: torch.device, needed: int) -> None:
    """Raise `InputError` if the volumes need more than `ROOM` of the free memory."""
    free = free_bytes(device)
    if needed > free * ROOM:
        raise InputError(
            what="the volumes do not fit on the device",
            where=device,
            got=f"{needed / 1e9:.1f} GB of volumes",
            expected=f"at most {ROOM:.0%} of the {free / 1e9:.1f} GB of free memory",
            cure="use tier disk, fewer series types, or a cache with a smaller --size",
        )


def _gathered(
    slices: Shaped[torch.Tensor, "n h w"], chosen: Int64[torch.Tensor, " m"]
) -> Shaped[torch.Tensor, "m h w"]:
    """Gather slices, eight bytes at a time where their size allows it."""
    flat = slices.flatten(1)
    wide = flat.view(torch.int64) if flat.shape[1] * flat.itemsize % 8 == 0 else flat
    picked = wide.index_select(0, chosen).view(slices.dtype)
    return picked.view(len(chosen), *slices.shape[1:])
