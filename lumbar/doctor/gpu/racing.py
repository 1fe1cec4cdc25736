"""Read batches from volumes on a busy device: nothing may be read before it is written.

A training step queues its kernels and returns. The slices of the next batch are gathered behind
them, and DALI reads on a stream of its own: if it does not wait, it renders what that memory held
before. An idle device does not show it, so a long kernel is queued first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from lumbar.doctor.host.reading import (
    CPU,
    DRAW_GPU_CURE,
    largest_difference,
    open_reader,
    plan_of,
    read,
)
from lumbar.doctor.host.small_cache import small_cache
from lumbar.doctor.result import CheckResult, failed, passed
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.reader.verify_pixels import PIXEL

HOLD_CYCLES = 200_000_000
"""Clock cycles for which the queued kernel runs: about a tenth of a second."""

STEPS = 6


def hold_device() -> None:
    """Queue a kernel that does nothing for `HOLD_CYCLES` on the current stream."""
    # Torch's own tests use it for this.
    torch.cuda._sleep(HOLD_CYCLES)  # type: ignore[no-untyped-call]


def check_busy_device(
    device: torch.device, views: int, hold: Callable[[], None] = hold_device
) -> CheckResult:
    """Read batches of ``views`` from volumes on the device, after a call of ``hold`` each."""
    with small_cache() as cache:
        plan = plan_of(cache, batch=views, steps=STEPS, augment=AugmentConfig(noise=0.0))
        here = read(open_reader(cache, plan, CPU, torch.float32, "cpu"))
        there = []
        with open_reader(cache, plan, device, torch.float32, "gpu", tier="device") as reader:
            batches = reader.epoch()
            for _ in range(STEPS):
                hold()
                there.append(next(batches).image)
            there = [image.cpu() for image in there]
    wrong = [
        number
        for number, (ours, theirs) in enumerate(zip(here, there, strict=True))
        if largest_difference([ours], [theirs]) > PIXEL
    ]
    if wrong:
        return failed(f"{len(wrong)} of {STEPS} batches have other pixels", DRAW_GPU_CURE)
    return passed(f"{STEPS} batches as on the CPU")
