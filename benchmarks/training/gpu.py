"""What a GPU does in lumbar's loop: how much of its peak, and how long nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lumbar.train.trainer.events import StepFinished
from training.loops import READY, BareLoop, LoopTask, lumbar_steps

PROFILED_STEPS = 10


@dataclass(frozen=True, slots=True)
class Peak:
    """The greatest rate of a GPU's matrix units in bfloat16, without sparsity."""

    name: str
    tflops: float
    source: str


PEAKS = (
    Peak("H200", 989.5, "NVIDIA H200 datasheet: 1,979 TFLOPS with sparsity, half without"),
    Peak("H100 PCIe", 756.5, "NVIDIA H100 datasheet: 1,513 TFLOPS with sparsity, half without"),
    Peak("H100", 989.5, "NVIDIA H100 datasheet: 1,979 TFLOPS with sparsity, half without"),
    Peak("A100", 312.0, "NVIDIA A100 datasheet"),
    Peak("L40S", 362.05, "NVIDIA L40S datasheet: 733 TFLOPS with sparsity, 362 without"),
    Peak("L4", 121.0, "NVIDIA L4 datasheet: 242 TFLOPS with sparsity, half without"),
    Peak("A10G", 70.0, "AWS: 70 TFLOPS in half precision"),
)
"""The first whose name is in the device's is taken."""


def peak_of(device: torch.device) -> Peak | None:
    """Return the peak of a GPU; None where it is not known here."""
    name = torch.cuda.get_device_name(device)
    return next((peak for peak in PEAKS if peak.name in name), None)


def flops_a_step(task: LoopTask) -> int:
    """Return the floating-point operations of forward and backward pass on the first batch.

    Convolutions and matrix products, as torch counts them; a recurrent network in one kernel,
    element-wise work and the optimiser are not in it.
    """
    loop = BareLoop(task)
    with FlopCounterMode(display=False) as counter:
        loop.backward()
    return int(counter.get_total_flops())


def share_outside_kernels(task: LoopTask) -> float:
    """Return the part of the device's time in lumbar's loop in which no kernel ran.

    From the first kernel to the end of the last of `PROFILED_STEPS` steps; copies are no kernels.
    """
    with closing(lumbar_steps(task)) as events:
        steps = (event for event in events if isinstance(event, StepFinished))
        for _ in range(READY):
            next(steps)
        task.synchronise()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(PROFILED_STEPS):
                next(steps)
            task.synchronise()
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type == DeviceType.CUDA and not event.name.startswith("Mem")
    ]
    return share_uncovered(kernels)


def share_uncovered(ranges: Sequence[tuple[float, float]]) -> float:
    """Return the part of the time from the first start to the last end that no range covers."""
    ordered = sorted(ranges)
    began = ended = ordered[0][0]
    covered = 0.0
    for start, end in ordered:
        covered += max(end - max(start, ended), 0.0)
        ended = max(ended, end)
    return 1 - covered / (ended - began)
