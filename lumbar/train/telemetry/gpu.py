"""Counters of one GPU from NVIDIA's driver, through NVML; None where the driver has none, never 0.

Hopper and newer also have GPM (GPU performance monitoring): the use of multiprocessors, tensor
cores, memory and bus between two samples.
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
"""Errors that stay the same on every query."""

_GPM_METRICS = {
    "sm_percent": (pynvml.NVML_GPM_METRIC_SM_UTIL, 1.0),
    "sm_occupancy_percent": (pynvml.NVML_GPM_METRIC_SM_OCCUPANCY, 1.0),
    "tensor_percent": (pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, 1.0),
    "dram_percent": (pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, 1.0),
    # NVML counts in MiB/s, and names the directions as the GPU sees them.
    "pcie_to_device_mb_s": (pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, MB_PER_MIB),
    "pcie_from_device_mb_s": (pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC, MB_PER_MIB),
}
"""Per field: the GPM metric, and the factor from its unit to the field's."""

_QUERIES: dict[str, Callable[[Any], float]] = {
    "gpu_percent": lambda handle: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
    "memory_used_bytes": lambda handle: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
    "power_watts": lambda handle: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    "energy_joules": lambda handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,
}
"""Per field: the query of NVML."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One reading of a GPU's counters, over all processes; None is not measured.

    Attributes
    ----------
    gpu_percent
        Share of the driver's last period, 1/6 to 1 s, in which at least one kernel ran, the
        loader's own included (``utilization.gpu``).
    memory_used_bytes
        Device memory in use, by all processes and the driver.
    power_watts
        Power; since Ampere, except for the GA100, the mean of the last second.
    energy_joules
        Energy since the driver was loaded.
    sm_percent
        Share of time in which a multiprocessor had a warp to run, mean of all multiprocessors.
    sm_occupancy_percent
        Share of resident warps in the maximum.
    tensor_percent
        Share of time in which the tensor cores were busy.
    dram_percent
        Used share of the theoretical bandwidth of device memory.
    pcie_to_device_mb_s, pcie_from_device_mb_s
        Traffic on PCIe, 10⁶ bytes per second.

    The last six are GPM's, for the time since its last sample; None in a reading less than
    `GPM_INTERVAL_SECONDS` after it.
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
    """The counters of one GPU, for one thread; created by `open`, and to be closed."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._queries = dict(_QUERIES)
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
        """Read all counters that the driver has; a refused one is not queried again."""
        values: dict[str, Any] = {}
        for name, query in tuple(self._queries.items()):
            try:
                values[name] = query(self._handle)
            except pynvml.NVMLError as error:
                if error.value in _REFUSALS:
                    _log.info("no %s: %s", name, error)
                    del self._queries[name]
        return GpuReading(**values | self._read_gpm())

    def close(self) -> None:
        """Free GPM's samples and shut NVML down."""
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
    """Two samples of GPM's counters, which take turns as the older one."""

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
        """Return the metrics since the last call that returned any; {} if that was just before."""
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
    """Return GPM's metrics for the time between two samples; unsupported ones are left out."""
    request = pynvml.c_nvmlGpmMetricsGet_t()
    request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    request.sample1, request.sample2 = older, newer
    request.numMetrics = len(_GPM_METRICS)
    for place, (metric, _) in enumerate(_GPM_METRICS.values()):
        request.metrics[place].metricId = metric
    pynvml.nvmlGpmMetricsGet(request)
    return {
        name: float(answer.value) * factor
        for (name, (_, factor)), answer in zip(_GPM_METRICS.items(), request.metrics, strict=False)
        if answer.nvmlReturn == pynvml.NVML_SUCCESS and math.isfinite(answer.value)
    }


def _is_divided(handle: Any) -> bool:
    try:
        mode, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:  # the GPU does not support MIG
        return False
    return bool(mode == pynvml.NVML_DEVICE_MIG_ENABLE)
