"""Check the counters by which `lumbar bench` and `lumbar train` report how busy a GPU is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lumbar.doctor.result import CheckResult, not_measured, passed
from lumbar.train.telemetry.gpu import GPM_INTERVAL_SECONDS, GpuCounters

CLOSED = "the driver gives no counters here: a part of a divided GPU (MIG), or no permission"


def check_nvml(device: torch.device) -> CheckResult:
    """Read utilisation, memory and power."""
    with _opened(device) as counters:
        if counters is None:
            return not_measured(CLOSED)
        reading = counters.read()
    values = (
        ("utilisation", reading.gpu_percent, "%"),
        ("memory", reading.memory_used_bytes and reading.memory_used_bytes / 1e9, "GB"),
        ("power", reading.power_watts, "W"),
    )
    found = [f"{name} {value:.1f} {unit}" for name, value, unit in values if value is not None]
    return passed(", ".join(found)) if found else not_measured("the driver gives none of them")


def check_gpm(device: torch.device) -> CheckResult:
    """Read how busy the multiprocessors are during some work."""
    with _opened(device) as counters:
        if counters is None:
            return not_measured(CLOSED)
        time.sleep(GPM_INTERVAL_SECONDS)
        counters.read()
        _work(device, 2 * GPM_INTERVAL_SECONDS)
        reading = counters.read()
    if reading.sm_percent is None:
        return not_measured("the driver gives none; GPUs from Hopper on have them")
    return passed(f"multiprocessors busy {reading.sm_percent:.0f} % of a moment of work")


@contextmanager
def _opened(device: torch.device) -> Iterator[GpuCounters | None]:
    counters = GpuCounters.open(device)
    try:
        yield counters
    finally:
        if counters is not None:
            counters.close()


def _work(device: torch.device, seconds: float) -> None:
    matrix = torch.rand((1024, 1024), device=device)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        torch.mm(matrix, matrix)[0, 0].item()
