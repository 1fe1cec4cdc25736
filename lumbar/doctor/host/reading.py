"""The reader: what it draws on the CPU, and that a GPU's batches have the same pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from lumbar.cache.store import Cache
from lumbar.doctor.host.small_cache import SERIES, small_cache
from lumbar.doctor.result import CheckResult, failed, passed
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.reader import Reader
from lumbar.train.reader.verify_pixels import PIXEL, WrongPixelsError

Draw = Literal["cpu", "gpu"]
Tier = Literal["disk", "device"]
Images = list[Float[torch.Tensor, "b d 1 h w"]]

CPU = torch.device("cpu")
CROP = CropConfig(slices=8, height=48, width=40, pixel_mm=5.0)
THREADS = 2
TIERS: tuple[Tier, ...] = ("disk", "device")

READER_CURE = "uv pip install --reinstall nvidia-dali-cuda120 numba llvmlite"
DRAW_CPU_CURE = (
    "nothing that is trained here can be trusted: test the GPU's memory and the driver, and "
    "report it with --json FILE"
)
DRAW_GPU_CURE = "train with --draw cpu, and report it with --json FILE"


def check_reader() -> CheckResult:
    """Read a batch on the CPU through DALI; compare it with a direct call of the compiled pass."""
    with small_cache() as cache:
        plan = plan_of(cache, batch=4, steps=1)
        try:
            read(open_reader(cache, plan, CPU, torch.float32, "cpu", verified=True))
        except WrongPixelsError as error:
            return failed(str(error), READER_CURE)
    return passed("4 samples, equal bit for bit")


def check_draw_cpu(device: torch.device) -> CheckResult:
    """Read batches that the CPU draws and DALI copies: bit for bit those of a CPU run."""
    dtype = torch.bfloat16
    with small_cache() as cache:
        plan = plan_of(cache, batch=4, steps=4)
        here = read(open_reader(cache, plan, CPU, dtype, "cpu"))
        there = read(open_reader(cache, plan, device, dtype, "cpu"))
    wrong = sum(not torch.equal(ours, theirs) for ours, theirs in zip(here, there, strict=True))
    if wrong:
        return failed(f"{wrong} of {len(here)} batches differ from the CPU's", DRAW_CPU_CURE)
    return passed(f"{len(here)} batches, bit for bit the CPU's")


def check_draw_gpu(device: torch.device) -> CheckResult:
    """Read batches that DALI's operators draw, from disk and from the device.

    Pixel by pixel without noise, which is DALI's own, and then with it, by its spread.
    """
    with small_cache() as cache:
        plan = plan_of(cache, batch=4, steps=4, augment=AugmentConfig(noise=0.0))
        here = read(open_reader(cache, plan, CPU, torch.float32, "cpu"))
        found = {
            tier: largest_difference(
                here, read(open_reader(cache, plan, device, torch.float32, "gpu", tier=tier))
            )
            for tier in TIERS
        }
        text = ", ".join(f"tier {tier} differs by {most:.1e}" for tier, most in found.items())
        if max(found.values()) > PIXEL:
            return failed(f"{text}; expected at most {PIXEL:.0e}", DRAW_GPU_CURE)
        noisy = plan_of(cache, batch=4, steps=1, augment=AugmentConfig(noise=0.2, cutout=0.4))
        try:
            read(open_reader(cache, noisy, device, torch.float32, "gpu", verified=True))
        except WrongPixelsError as error:
            return failed(str(error), DRAW_GPU_CURE)
    return passed(text)


def plan_of(cache: Cache, *, batch: int, steps: int, augment: AugmentConfig | None = None) -> Plan:
    """Return a plan of ``steps`` steps per epoch; series repeat as often as needed."""
    samples = Samples.of_series(cache, cache.rows_of(SERIES))
    return Plan(
        _repeated(samples, batch * steps),
        CROP,
        augment or AugmentConfig(),
        batch=batch,
        shuffle=True,
        seed=1,
    )


def read(opened: Reader) -> Images:
    """Return the images of an epoch, on the host, and close the reader.

    Raises
    ------
    WrongPixelsError
        Where the reader verifies its pixels, and they are wrong.
    """
    with opened as reader:
        # All are kept, so that an image that is overwritten later is found.
        images = [batch.image for batch in reader.epoch()]
        return [image.cpu() for image in images]


def open_reader(
    cache: Cache,
    plan: Plan,
    device: torch.device,
    dtype: torch.dtype,
    draw: Draw,
    *,
    tier: Tier = "disk",
    verified: bool = False,
) -> Reader:
    """Return a reader, which the caller closes; ``verified`` makes it compare its pixels."""
    return Reader(
        cache,
        plan,
        device=device,
        dtype=dtype,
        threads=THREADS,
        draw=draw,
        tier=tier,
        verified_steps=plan.steps if verified else 0,
    )


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Return the largest difference of two lists of tensors; NaN counts as infinite."""
    differences = [
        (one.double() - other.double()).abs().max() for one, other in zip(ours, theirs, strict=True)
    ]
    return float(torch.stack(differences).max().nan_to_num(nan=math.inf))


def _repeated(samples: Samples, n: int) -> Samples:
    """Return ``n`` samples: the given ones, repeated in turn."""
    index = np.arange(n) % len(samples)
    names = ("row", "series_type", "shape", "spacing_mm", "patient_axes", "centre_dhw", "stack",
             "level", "severity")  # fmt: skip
    taken = {name: getattr(samples, name)[index] for name in names}
    return replace(samples, study_id=tuple(samples.study_id[i] for i in index), **taken)
