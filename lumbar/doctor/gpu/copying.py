"""Measure how fast memory is copied to a GPU, and whether kernels run meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lumbar.doctor.result import CheckResult, failed, passed

COPIED_BYTES = 64 * 2**20
REPEATS = 8

LEAST_GB_S = 1.0
"""The stored slices of 400 volumes/s (2.4 MB each); PCIe 3.0 of 16 lanes has 12 GB/s."""

LEAST_HIDDEN = 0.5
"""The share of the shorter one's time that both must run at once."""


def check_bandwidth(device: torch.device) -> CheckResult:
    """Copy pinned memory to the device."""
    copy = _copies(device)
    gb_s = REPEATS * COPIED_BYTES / 1e6 / _milliseconds(device, copy)
    found = f"{gb_s:.1f} GB/s"
    if gb_s >= LEAST_GB_S:
        return passed(found)
    return failed(
        f"{found}; expected {LEAST_GB_S:.0f} or more",
        "see the lanes of the slot (nvidia-smi -q, PCIe link width and generation) and that "
        "nothing else copies; train with --tier device where the volumes fit",
    )


def check_overlap(device: torch.device) -> CheckResult:
    """Queue copies on one stream and kernels on another; they should run at the same time."""
    copy, kernel = _copies(device), _kernels(device)
    copies_ms, kernels_ms = _milliseconds(device, copy), _milliseconds(device, kernel)
    beside: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def both() -> None:
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            copy()
        kernel()
        torch.cuda.current_stream(device).wait_stream(beside)

    share = hidden_share(copies_ms, kernels_ms, _milliseconds(device, both))
    found = f"{share:.0%} of the shorter one's time is covered"
    if share >= LEAST_HIDDEN:
        return passed(found)
    return failed(
        f"{found}; expected {LEAST_HIDDEN:.0%} or more",
        "see that CUDA_LAUNCH_BLOCKING is not set and no profiler serialises the device; train "
        "with --tier device where the volumes fit",
    )


def hidden_share(first_ms: float, second_ms: float, both_ms: float) -> float:
    """Return the share of the shorter time that overlaps with the longer one."""
    saved = first_ms + second_ms - both_ms
    return min(max(saved / min(first_ms, second_ms), 0.0), 1.0)


def _copies(device: torch.device) -> Callable[[], None]:
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=device)

    def run() -> None:
        for _ in range(REPEATS):
            target.copy_(source, non_blocking=True)

    return run


def _kernels(device: torch.device) -> Callable[[], None]:
    matrix = torch.rand((2048, 2048), device=device)

    def run() -> None:
        for _ in range(4 * REPEATS):
            torch.mm(matrix, matrix)

    return run


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


def _milliseconds(device: torch.device, run: Callable[[], None]) -> float:
    """Return how long the device takes for the second run."""
    with torch.cuda.device(device):
        run()
        start, end = _event(), _event()
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))
