"""Measure time on the device without making the host wait for it."""

from __future__ import annotations

import time
from typing import Any

import torch


class DeviceClock:
    """Time marks on the device; on a GPU they are events, which do not block."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> Any:
        """Return a mark; a GPU reaches it when the work queued so far is done."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def synchronise(self) -> None:
        """Wait for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def seconds(self, first: Any, second: Any) -> float:
        """Return the seconds between two marks that the device has reached."""
        if self._device.type != "cuda":
            return float(second - first)
        return float(first.elapsed_time(second)) / 1000
