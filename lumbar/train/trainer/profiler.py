"""A trace of some training steps, on demand: what runs when, on the host and on the device."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, profile, schedule

TRACE = "trace.json"

WARM_UP = 5
"""Steps before those that are traced: the first ones compile and allocate."""


class StepProfiler:
    """Traces ``steps`` training steps after a warm-up into ``trace.json`` of a run; 0 traces none.

    The file opens in Perfetto or in Chrome's tracing page.
    """

    def __init__(self, run: Path, device: torch.device, *, steps: int) -> None:
        self._profile: profile | None = None
        if steps:
            activities = [ProfilerActivity.CPU]
            if device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(
                activities=activities,
                schedule=schedule(wait=0, warmup=WARM_UP, active=steps, repeat=1),
                on_trace_ready=lambda done: done.export_chrome_trace(str(run / TRACE)),
                record_shapes=True,
            )

    def __enter__(self) -> StepProfiler:
        if self._profile is not None:
            self._profile.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._profile is not None:
            self._profile.stop()

    def step(self) -> None:
        """Say that a step is done."""
        if self._profile is not None:
            self._profile.step()
