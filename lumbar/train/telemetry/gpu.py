"""What NVIDIA's driver says of one GPU, through NVML; None where it does not say, never 0.

Beside the usual figures there is GPM (GPU performance monitoring), which Hopper and newer have:
what the multiprocessors, the tensor cores, the memory and the bus did between two samples.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml
import torch

GPM_INTERVAL_SECONDS = 0.15
"""Least time between two GPM samples: the driver refreshes its counters every 0.1 s ("should be
greater than 100ms", NVML API reference, nvmlGpmMetricsGet)."""

MB_PER_MIB = 2**20 / 1e6

_REFUSALS = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
"""Answers that stay the same however often one asks."""

_GPM_METRICS = {
    "sm_percent": (pynvml.NVML_GPM_METRIC_SM_UTIL, 1.0),
    "sm_occupancy_percent": (pynvml.NVML_GPM_METRIC_SM_OCCUPANCY, 1.0),
    "tensor_percent": (pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, 1.0),
    "dram_percent": (pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, 1.0),
    # NVML counts in MiB/s, and names the directions as the GPU sees them.
    "pcie_to_device_mb_s": (pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, MB_PER_MIB),
    "pcie_from_device_mb_s": (pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC, MB_PER_MIB),
}
"""Field, GPM metric, and the field's units in one of the metric's."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One reading of a GPU's counters, of all that runs on it; None is not measured.

    Attributes
    ----------
    gpu_percent
        Share of the driver's last period, 1/6 to 1 s, in which at least one kernel ran, the
        loader's own included (``utilization.gpu``).
    memory_used_bytes
        Device memory in use, by all processes and the driver.
    power_watts
        Power draw; since Ampere, but for the GA100, the mean of the last second.
    energy_joules
        Energy since the driver was loaded.
    sm_percent
        Share of time in which a multiprocessor had a warp to run, mean of all multiprocessors.
    sm_occupancy_percent
        Warps that were resident, of the most that there could be.
    tensor_percent
        Share of time in which the tensor cores were busy.
    dram_percent
        Device memory's bandwidth in use, of the greatest in theory.
    pcie_to_device_mb_s, pcie_from_device_mb_s
        Traffic on PCIe, 10⁶ bytes a second.

    The last six are GPM's, of the time since its sample before; None in a reading that comes less
    than `GPM_INTERVAL_SECONDS` after it.
    """

    gpu_percent: float | None = None
    memory_used_bytes: int | None = None
    power_watts: float | None = None
    energy_joules: float | None = None
    sm_percent: float | None = None
    sm_occupancy_percent: float | None = None
    tensor_percent: float | None = None
    dram_percent: float | None = None
    pcie_to_device_mb_s: float | None = None
    pcie_from_device_mb_s: float | None = None


class GpuCounters:
    """The counters of one GPU; opened by `open`, to be closed, used by one thread."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._asked: dict[str, Callable[[Any], float]] = {
            "gpu_percent": _gpu_percent,
            "memory_used_bytes": _memory_used_bytes,
            "power_watts": _power_watts,
            "energy_joules": _energy_joules,
        }
        self._gpm = _open_gpm(handle)

    @classmethod
    def open(cls, device: torch.device) -> GpuCounters | None:
        """Return the counters of a torch device; None without a GPU, a driver or a permission.

        None also for an instance of a divided GPU (MIG): the counters are the whole GPU's.
        """
        if device.type != "cuda":
            return None
        # By UUID, since NVML's order of devices is not CUDA's.
        uuid = f"GPU-{torch.cuda.get_device_properties(device.index or 0).uuid}"
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            _log.info("no counters of %s: %s", device, error)
            return None
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            if not _is_divided(handle):
                return cls(handle)
            _log.info("no counters of %s: it is a part of a divided GPU", device)
        except pynvml.NVMLError as error:
            _log.info("no counters of %s: %s", device, error)
        pynvml.nvmlShutdown()
        return None

    def read(self) -> GpuReading:
        """Read all counters that the driver has; one that it refused is not asked for again."""
        values: dict[str, Any] = {}
        for name, ask in tuple(self._asked.items()):
            try:
                values[name] = ask(self._handle)
            except pynvml.NVMLError as error:
                if error.value in _REFUSALS:
                    _log.info("no %s: %s", name, error)
                    del self._asked[name]
        return GpuReading(**values | self._read_gpm())

    def close(self) -> None:
        """Give back GPM's samples and leave NVML."""
        if self._gpm is not None:
            self._gpm.close()
            self._gpm = None
        pynvml.nvmlShutdown()

    def _read_gpm(self) -> dict[str, Any]:
        if self._gpm is None:
            return {}
        try:
            return self._gpm.read()
        except pynvml.NVMLError as error:
            if error.value in _REFUSALS:
                _log.info("no GPM any more: %s", error)
                self._gpm.close()
                self._gpm = None
            return {}


class _Gpm:
    """Two samples of GPM's counters, of which each is the older one in turn."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._samples: list[Any] = []
        try:
            for _ in range(2):
                self._samples.append(pynvml.nvmlGpmSampleAlloc())
            pynvml.nvmlGpmSampleGet(handle, self._samples[0])
        except pynvml.NVMLError:
            self.close()
            raise
        self._sampled = time.monotonic()

    def read(self) -> dict[str, float]:
        """Return what happened since the last call that returned something; {} if that is new."""
        now = time.monotonic()
        if now - self._sampled < GPM_INTERVAL_SECONDS:
            return {}
        older, newer = self._samples
        pynvml.nvmlGpmSampleGet(self._handle, newer)
        self._samples, self._sampled = [newer, older], now
        return _between(older, newer)

    def close(self) -> None:
        while self._samples:
            pynvml.nvmlGpmSampleFree(self._samples.pop())


def _open_gpm(handle: Any) -> _Gpm | None:
    try:
        if pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
            return _Gpm(handle)
    except pynvml.NVMLError as error:
        _log.info("no GPM: %s", error)
    return None


def _between(older: Any, newer: Any) -> dict[str, float]:
    """Return GPM's metrics of the time between two samples, without those that it has not."""
    asked = pynvml.c_nvmlGpmMetricsGet_t()
    asked.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    asked.sample1, asked.sample2 = older, newer
    asked.numMetrics = len(_GPM_METRICS)
    for place, (metric, _) in enumerate(_GPM_METRICS.values()):
        asked.metrics[place].metricId = metric
    pynvml.nvmlGpmMetricsGet(asked)
    return {
        name: float(answer.value) * factor
        for (name, (_, factor)), answer in zip(_GPM_METRICS.items(), asked.metrics, strict=False)
        if answer.nvmlReturn == pynvml.NVML_SUCCESS and math.isfinite(answer.value)
    }


def _is_divided(handle: Any) -> bool:
    try:
        mode, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:  # a GPU that cannot be divided
        return False
    return bool(mode == pynvml.NVML_DEVICE_MIG_ENABLE)


def _gpu_percent(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _memory_used_bytes(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def _power_watts(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetPowerUsage(handle)) / 1000


def _energy_joules(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
