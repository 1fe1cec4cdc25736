"""What NVML says of a GPU, sampled beside the work; None where there is none, never 0."""

from __future__ import annotations

import threading
from types import TracebackType

import pynvml
import torch

INTERVAL_SECONDS = 0.1


class UtilisationSampler:
    """Samples ``utilization.gpu`` of one device in a thread, from enter to exit.

    NVML's figure is the share of time in which at least one kernel ran, the loader's own included.
    """

    def __init__(self, device: torch.device) -> None:
        self._index = (device.index or 0) if device.type == "cuda" else None
        self._samples: list[int] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> UtilisationSampler:
        if self._index is not None:
            self._thread = threading.Thread(target=self._sample, args=(self._index,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def percent(self) -> float | None:
        """Return the mean since the last call, or None where nothing was measured."""
        samples, self._samples = self._samples, []
        return sum(samples) / len(samples) if samples else None

    def _sample(self, index: int) -> None:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return
        try:
            uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            while not self._stop.wait(INTERVAL_SECONDS):
                self._samples.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except pynvml.NVMLError:
            return
        finally:
            pynvml.nvmlShutdown()
