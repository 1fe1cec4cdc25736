"""Where the volumes of a plan lie: mapped from disk, decompressed ahead, or on the device."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.slices import Slices, compacted
from lumbar.train.views import View

Tier = Literal["auto", "disk", "device"]

DEVICE_SHARE = 0.5
"""The part of a device's free memory that ``auto`` gives to volumes; the rest is the model's."""

ROOM = 0.9
"""The part of a device's free memory that volumes may fill where they are asked for."""

MEMORY = Path("/proc/meminfo")

Loading = Iterator[tuple[int, int]]
"""How many bytes of how many lie on the device."""


class MappedVolumes:
    """Memory maps of an uncompressed cache; the disk is told ahead what will be read."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._read: set[int] = set()
        self._faults = 0

    def fetch(self, views: Sequence[View]) -> tuple[list[Any], list[Slices]]:
        """Return the maps of the views' series."""
        # What was read once is in the page cache, unless pages come from the disk again.
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        for view in views:
            if view.row not in self._read or faults > self._faults:
                self._cache.read_ahead(view.row, view.slices)
        self._read.update(view.row for view in views)
        self._faults = faults
        return [self._cache.volume(view.row) for view in views], [view.slices for view in views]

    def load(self) -> Loading:
        """Load nothing: pages come as they are read."""
        yield from ()

    def close(self) -> None:
        """Leave the maps to the cache, whose they are."""


class DecompressedVolumes:
    """The slices of a compressed cache, decompressed by threads."""

    def __init__(self, cache: Cache, threads: int) -> None:
        self._cache = cache
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="lumbar-decompress")

    def fetch(self, views: Sequence[View]) -> tuple[list[Any], list[Slices]]:
        """Return arrays that hold the views' slices alone, in their order."""
        picked, places = zip(*(compacted(view.slices) for view in views), strict=True)
        volumes = self._workers.map(self._cache.slices, (view.row for view in views), picked)
        return list(volumes), list(places)

    def load(self) -> Loading:
        """Load nothing: slices are decompressed as they are needed."""
        yield from ()

    def close(self) -> None:
        """End the threads."""
        self._workers.shutdown(cancel_futures=True)


class ResidentVolumes:
    """All volumes of some rows in the memory of a device, as stored integers, loaded once.

    On a GPU ``fetch`` gives its tensors; on the CPU arrays.

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
        self._volumes: dict[int, Any] = {}

    def load(self) -> Loading:
        """Load every volume, and tell after each how far it is."""
        done = 0
        for row in self._rows:
            volume = np.array(self._cache.volume(row))
            on_cpu = self._device.type == "cpu"
            self._volumes[row] = volume if on_cpu else torch.from_numpy(volume).to(self._device)
            done += volume.nbytes
            yield done, self._total

    def fetch(self, views: Sequence[View]) -> tuple[list[Any], list[Slices]]:
        """Return the resident volumes of the views' series."""
        return [self._volumes[view.row] for view in views], [view.slices for view in views]

    def close(self) -> None:
        """Free the memory."""
        self._volumes.clear()


Volumes = MappedVolumes | DecompressedVolumes | ResidentVolumes
"""``fetch`` gives what the pipeline reads of each view: a volume, and the slices to take of it."""


def open_volumes(
    cache: Cache,
    rows: Sequence[int],
    *,
    tier: Literal["disk", "device"],
    device: torch.device,
    threads: int,
) -> Volumes:
    """Return the volumes of a tier; they have to be loaded before they are fetched."""
    if tier == "device":
        return ResidentVolumes(cache, rows, device)
    if cache.profile == "archive":
        return DecompressedVolumes(cache, threads)
    return MappedVolumes(cache)


def choose_tier(
    tier: Tier, cache: Cache, rows: Sequence[int], device: torch.device
) -> tuple[Literal["disk", "device"], str]:
    """Return the tier to use, and in one line why.

    ``auto`` takes ``device`` on a GPU whose free memory holds the volumes twice over, else
    ``disk``: on a CPU the page cache is the same memory.
    """
    needed = stored_bytes(cache, rows) / 1e9
    if tier != "auto":
        return tier, f"tier {tier}, as asked for: {len(rows)} series, {needed:.2f} GB"
    if device.type == "cpu":
        return "disk", f"tier disk: on the CPU the page cache serves {needed:.2f} GB"
    free = free_bytes(device) / 1e9
    fits = needed <= free * DEVICE_SHARE
    return (
        "device" if fits else "disk",
        f"tier {'device' if fits else 'disk'}: {needed:.2f} GB of volumes, {free:.2f} GB free on "
        f"{device}, of which {DEVICE_SHARE:.0%} may be theirs",
    )


def stored_bytes(cache: Cache, rows: Sequence[int]) -> int:
    """Return what the volumes of some rows take in memory, uncompressed."""
    table = cache.series[list(rows)]
    itemsize = np.array([np.dtype(name).itemsize for name in table["dtype"]], np.int64)
    voxels = table.select("depth", "height", "width").to_numpy().astype(np.int64).prod(axis=1)
    return int((voxels * itemsize).sum())


def _require_room(device: torch.device, needed: int) -> None:
    """Raise `InputError` where the volumes need more memory than a device has for them."""
    free = free_bytes(device)
    if needed > free * ROOM:
        raise InputError(
            what="the volumes do not fit on the device",
            where=device,
            got=f"{needed / 1e9:.1f} GB of volumes",
            expected=f"at most {ROOM:.0%} of the {free / 1e9:.1f} GB that are free",
            cure="use tier disk, fewer series types, or a cache with a smaller --size",
        )


def free_bytes(device: torch.device) -> int:
    """Return the memory of a device that is free.

    On the host with what the page cache can give, on a GPU with what torch keeps for itself: it
    has there what an earlier reader has let go of.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    lines = (line.split() for line in MEMORY.read_text().splitlines())
    return next(int(kibibytes) * 1024 for name, kibibytes, *_ in lines if name == "MemAvailable:")
