"""Where volumes lie and where pixels are rendered: the choice of ``--tier`` and ``--draw``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.telemetry.cgroup import memory_limit_bytes
from lumbar.train.telemetry.cpu import usable_cores

Tier = Literal["auto", "disk", "device"]
Draw = Literal["auto", "cpu", "gpu"]

DEVICE_SHARE = 0.5
"""The part of a device's free memory that ``auto`` gives to volumes; the model has the rest."""

FASTEST_MODEL = 1500
"""Views of 16 x 256 x 256 per second that the fastest GPU trains: an upper estimate, not measured,
for a ResNet-18 of stride 16 in bfloat16 on an H200. Consumer cards are about ten times slower."""

LIGHT_MS, HEAVY_MS, DECOMPRESS_MS = 1.3, 4.5, 3.2
"""CPU milliseconds per such view: the compiled pass without and with the steps that
`AugmentConfig.is_light` excludes, and decompression. Measured on an AMD EPYC."""

HEADROOM = 2
"""Cores per core that the reader keeps busy; the training thread, the plan and the operating system
need the others."""

MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the volumes of ``rows`` lie, where pixels are rendered, and why, in one line.

    ``draw`` is ``cpu``: the compiled pass on the host, or ``gpu``: DALI's operators.
    """

    rows: tuple[int, ...]
    tier: Literal["disk", "device"]
    draw: Literal["cpu", "gpu"]
    why: str


def choose_placement(
    cache: Cache,
    rows: Sequence[int],
    device: torch.device,
    *,
    tier: Tier = "auto",
    draw: Draw = "auto",
    threads: int,
    augment: AugmentConfig,
) -> Placement:
    """Choose where volumes lie and where pixels are rendered.

    On the CPU volumes are read through the page cache, and the compiled pass renders. For a GPU
    ``auto`` leaves the volumes on disk if they fit the machine's memory or the ``threads`` suffice;
    else it loads them to the device if they fit there. It renders on the CPU unless the volumes lie
    on the device or the threads do not suffice.

    Raises
    ------
    InputError
        If pixels are to be rendered on a GPU without a GPU, or on the CPU from volumes on a GPU.
    """
    _check(device, tier=tier, draw=draw)
    chosen = tuple(rows)
    needed = stored_bytes(cache, rows)
    if device.type == "cpu":
        place = "in memory" if tier == "device" else "in the page cache"
        why = f"volumes: {len(chosen)} series, {needed / 1e9:.2f} GB {place}; rendered on the CPU"
        return Placement(chosen, "device" if tier == "device" else "disk", "cpu", why)
    cores = cores_needed(augment, archive=cache.profile == "archive")
    where, of_tier = _choose_tier(tier, draw, needed, device, suffices=threads >= cores)
    chosen_draw, of_draw = _choose_draw(draw, where, threads=threads, cores=cores)
    why = (
        f"volumes: {len(chosen)} series, {needed / 1e9:.2f} GB "
        f"{'on the GPU' if where == 'device' else 'on disk'} ({of_tier}); "
        f"rendered on the {chosen_draw.upper()} ({of_draw})"
    )
    return Placement(chosen, where, chosen_draw, why)


def default_threads(device: torch.device) -> int:
    """Return the default number of a reader's threads.

    For a GPU all cores of this process; beside a network on the CPU a quarter of them, since the
    network takes about a hundred times as long per view as the reader.
    """
    cores = usable_cores()
    return cores if device.type == "cuda" else max(1, cores // 4)


def cores_needed(augment: AugmentConfig, *, archive: bool) -> int:
    """Return the cores that a reader needs to feed the fastest GPU training a ResNet-18."""
    view_ms = LIGHT_MS if augment.is_light else HEAVY_MS
    if archive:
        view_ms += DECOMPRESS_MS
    return math.ceil(HEADROOM * FASTEST_MODEL * view_ms / 1000)


def stored_bytes(cache: Cache, rows: Sequence[int]) -> int:
    """Return the uncompressed size of the volumes of some rows."""
    table = cache.series[list(rows)]
    itemsize = np.array([np.dtype(name).itemsize for name in table["dtype"]], np.int64)
    voxels = table.select("depth", "height", "width").to_numpy().astype(np.int64).prod(axis=1)
    return int((voxels * itemsize).sum())


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device.

    On the host this includes the page cache, up to a container's limit; on a GPU it includes what
    torch has reserved and does not use, such as the memory of an earlier reader.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    lines = (line.split() for line in MEMORY.read_text().splitlines())
    free = next(int(kibibytes) * 1024 for name, kibibytes, *_ in lines if name == "MemAvailable:")
    # The whole limit of a container: what it uses is mostly page cache, which can be freed.
    limit = memory_limit_bytes()
    return free if limit is None else min(free, limit)


def _check(device: torch.device, *, tier: Tier, draw: Draw) -> None:
    if device.type == "cpu" and draw == "gpu":
        raise InputError(
            what="pixels cannot be rendered on a GPU",
            where="--draw",
            got=f"gpu, with the device {device}",
            expected="cpu or auto",
            cure="leave --draw out, or use --device cuda",
        )
    if device.type == "cuda" and tier == "device" and draw == "cpu":
        raise InputError(
            what="the CPU cannot render from volumes that lie on a GPU",
            where="--tier, --draw",
            got="device, cpu",
            expected="--tier disk with --draw cpu, or --tier device with --draw gpu",
            cure="leave one of them out",
        )


def _choose_tier(
    tier: Tier, draw: Draw, needed: int, device: torch.device, *, suffices: bool
) -> tuple[Literal["disk", "device"], str]:
    """Return where the volumes lie for a GPU, and why."""
    if tier != "auto":
        return tier, "as requested"
    if draw == "cpu":
        return "disk", "where the CPU reads them"
    memory = free_bytes(torch.device("cpu"))
    if needed <= memory:
        return "disk", f"they fit the {memory / 1e9:.1f} GB of free memory"
    if suffices:
        return "disk", "the reader threads suffice"
    free = free_bytes(device)
    if needed <= free * DEVICE_SHARE:
        return (
            "device",
            f"more than memory holds, less than half of the GPU's {free / 1e9:.1f} GB free",
        )
    return "disk", f"more than memory holds, and than half of the GPU's {free / 1e9:.1f} GB free"


def _choose_draw(
    draw: Draw, tier: Literal["disk", "device"], *, threads: int, cores: int
) -> tuple[Literal["cpu", "gpu"], str]:
    """Return where pixels are rendered for a GPU, and why."""
    if draw != "auto":
        return draw, "as requested"
    if tier == "device":
        return "gpu", "where the volumes lie"
    if threads < cores:
        return "gpu", f"{threads} reader threads, fewer than the {cores} that feed any GPU"
    return "cpu", f"{threads} reader threads; {cores} feed any GPU"
