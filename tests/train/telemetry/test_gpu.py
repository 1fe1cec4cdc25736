"""A GPU's counters, with a driver of ours: what it gives, what it lacks and what it forbids."""

import ctypes
import time
from functools import partial
from types import SimpleNamespace

import pynvml
import pytest
import torch

from lumbar.train.telemetry import gpu
from lumbar.train.telemetry.gpu import GPM_INTERVAL_SECONDS, GpuCounters, GpuReading

CUDA = torch.device("cuda:1")
GPM = {
    pynvml.NVML_GPM_METRIC_SM_UTIL: "sm",
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: "occupancy",
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: "tensor",
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: "dram",
    pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC: "to_device_mib",
    pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC: "from_device_mib",
}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")


class Driver:
    """NVML with two devices; constants, structures and errors are the real package's.

    Its GPM counters count up, each at its rate a second.
    """

    def __init__(self):
        self.errors = {}
        self.queries = []
        self.open = 0
        self.divided = False
        self.has_gpm = True
        self.now = 0.0
        self.rates = {name: 10.0 * place for place, name in enumerate(GPM.values(), 1)}
        self.samples = {}

    def _ask(self, name):
        self.queries.append(name)
        if name in self.errors:
            raise pynvml.NVMLError(self.errors[name])

    def init(self):
        self._ask("init")
        self.open += 1

    def shut_down(self):
        assert self.open
        self.open -= 1

    def handle_of(self, uuid):
        self._ask("handle")
        return f"handle of {uuid}"

    def mig_mode(self, handle):
        self._ask("mig")
        return [int(self.divided), 0]

    def utilisation(self, handle):
        assert handle == "handle of GPU-uuid-1"
        self._ask("utilisation")
        return SimpleNamespace(gpu=37, memory=5)

    def memory(self, handle):
        self._ask("memory")
        return SimpleNamespace(total=80_000, free=50_000, used=30_000)

    def power(self, handle):
        self._ask("power")
        return 123_400

    def energy(self, handle):
        self._ask("energy")
        return 5_678_900

    def gpm_support(self, handle):
        self._ask("gpm support")
        return SimpleNamespace(isSupportedDevice=int(self.has_gpm))

    def gpm_alloc(self):
        self._ask("gpm alloc")
        address = 8 * (1 + len(self.samples))
        self.samples[address] = None
        return ctypes.cast(address, pynvml.c_nvmlGpmSample_t)

    def gpm_sample(self, handle, sample):
        self._ask("gpm sample")
        self.samples[address_of(sample)] = self.now
        return sample

    def gpm_free(self, sample):
        del self.samples[address_of(sample)]

    def gpm_metrics(self, request):
        self._ask("gpm metrics")
        assert request.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        seconds = (
            self.samples[address_of(request.sample2)] - self.samples[address_of(request.sample1)]
        )
        assert seconds >= GPM_INTERVAL_SECONDS
        for metric in request.metrics[: request.numMetrics]:
            rate = self.rates[GPM[metric.metricId]]
            metric.nvmlReturn = pynvml.NVML_ERROR_NOT_FOUND if rate is None else 0
            metric.value = seconds if rate is None else rate / seconds
        return request


CALLS = {
    "nvmlInit": Driver.init,
    "nvmlShutdown": Driver.shut_down,
    "nvmlDeviceGetHandleByUUID": Driver.handle_of,
    "nvmlDeviceGetMigMode": Driver.mig_mode,
    "nvmlDeviceGetUtilizationRates": Driver.utilisation,
    "nvmlDeviceGetMemoryInfo": Driver.memory,
    "nvmlDeviceGetPowerUsage": Driver.power,
    "nvmlDeviceGetTotalEnergyConsumption": Driver.energy,
    "nvmlGpmQueryDeviceSupport": Driver.gpm_support,
    "nvmlGpmSampleAlloc": Driver.gpm_alloc,
    "nvmlGpmSampleGet": Driver.gpm_sample,
    "nvmlGpmSampleFree": Driver.gpm_free,
    "nvmlGpmMetricsGet": Driver.gpm_metrics,
}


def address_of(sample):
    return ctypes.cast(sample, ctypes.c_void_p).value


@pytest.fixture
def driver(monkeypatch):
    driver = Driver()
    for name, call in CALLS.items():
        monkeypatch.setattr(pynvml, name, partial(call, driver))
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: driver.now))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"uuid-{index}")
    )
    return driver


USUAL = {
    "gpu_percent": 37.0,
    "memory_used_bytes": 30_000,
    "power_watts": 123.4,
    "energy_joules": 5678.9,
}


def test_usual_counters_are_in_their_units(driver):
    counters = GpuCounters.open(CUDA)
    assert counters.read() == GpuReading(**USUAL)
    counters.close()
    assert driver.open == 0
    assert driver.samples == {}


def test_gpm_is_of_the_time_since_its_sample_before(driver):
    counters = GpuCounters.open(CUDA)
    driver.now = 0.5
    expected = {
        "sm_percent": 20.0,
        "sm_occupancy_percent": 40.0,
        "tensor_percent": 60.0,
        "dram_percent": 80.0,
        "pcie_to_device_mb_s": 100.0 * 1.048576,
        "pcie_from_device_mb_s": 120.0 * 1.048576,
    }
    assert counters.read() == GpuReading(**USUAL, **expected)
    driver.now = 0.5 + GPM_INTERVAL_SECONDS / 2
    assert counters.read() == GpuReading(**USUAL), "too early"
    driver.now = 1.5
    assert counters.read().sm_percent == 10.0
    driver.now = 1.75
    assert counters.read().sm_percent == 40.0
    counters.close()
    assert driver.samples == {}


def test_metrics_that_gpm_does_not_give_are_none(driver):
    driver.rates |= {"tensor": None, "dram": float("nan")}
    counters = GpuCounters.open(CUDA)
    driver.now = 1.0
    reading = counters.read()
    assert reading.sm_percent == 10.0
    assert reading.tensor_percent is None
    assert reading.dram_percent is None


def test_a_gpu_without_gpm_has_its_usual_counters(driver):
    driver.has_gpm = False
    counters = GpuCounters.open(CUDA)
    driver.now = 1.0
    assert counters.read() == GpuReading(**USUAL)
    counters.close()
    assert "gpm alloc" not in driver.queries


@pytest.mark.parametrize(
    "error",
    [pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND],
    ids=["not permitted", "old driver"],
)
@pytest.mark.parametrize("call", ["gpm support", "gpm alloc", "gpm sample", "gpm metrics"])
def test_gpm_that_is_refused_is_queried_once(driver, call, error):
    driver.errors[call] = error
    counters = GpuCounters.open(CUDA)
    for driver.now in (1.0, 2.0, 3.0):
        assert counters.read() == GpuReading(**USUAL)
    assert driver.queries.count(call) == 1
    assert driver.samples == {}
    counters.close()
    assert driver.open == 0


def test_a_sample_that_could_not_be_taken_leaves_its_time_to_the_next(driver):
    counters = GpuCounters.open(CUDA)
    driver.errors["gpm sample"] = pynvml.NVML_ERROR_TIMEOUT
    driver.now = 1.0
    assert counters.read().sm_percent is None
    driver.errors.clear()
    driver.now = 2.0
    assert counters.read().sm_percent == 5.0


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("utilisation", "gpu_percent"),
        ("memory", "memory_used_bytes"),
        ("power", "power_watts"),
        ("energy", "energy_joules"),
    ],
)
def test_a_counter_that_is_lacking_is_queried_once(driver, call, field):
    driver.errors[call] = pynvml.NVML_ERROR_NOT_SUPPORTED
    counters = GpuCounters.open(CUDA)
    for _ in range(3):
        assert counters.read() == GpuReading(**USUAL | {field: None})
    assert driver.queries.count(call) == 1


def test_a_counter_that_fails_once_is_queried_again(driver):
    counters = GpuCounters.open(CUDA)
    driver.errors["power"] = pynvml.NVML_ERROR_TIMEOUT
    assert counters.read().power_watts is None
    driver.errors.clear()
    assert counters.read().power_watts == 123.4


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("init", pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
        ("init", pynvml.NVML_ERROR_DRIVER_NOT_LOADED),
        ("handle", pynvml.NVML_ERROR_NOT_FOUND),
        ("handle", pynvml.NVML_ERROR_NO_PERMISSION),
    ],
)
def test_without_a_driver_or_the_device_there_are_no_counters(driver, call, error):
    driver.errors[call] = error
    assert GpuCounters.open(CUDA) is None
    assert driver.open == 0


def test_a_part_of_a_divided_gpu_has_no_counters(driver):
    driver.divided = True
    assert GpuCounters.open(CUDA) is None
    assert driver.open == 0


def test_a_gpu_that_cannot_be_divided_has_counters(driver):
    driver.errors["mig"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert GpuCounters.open(CUDA).read().gpu_percent == 37.0


def test_a_cpu_has_no_counters(driver):
    assert GpuCounters.open(torch.device("cpu")) is None
    assert driver.queries == []


@pytest.mark.gpu
@needs_gpu
def test_counters_of_a_real_gpu():
    device = torch.device("cuda:0")
    square = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
    counters = GpuCounters.open(device)
    if counters is None:
        pytest.skip("the GPU is divided, or its driver may not be queried")
    try:
        before = counters.read()
        ends = time.perf_counter() + 1.0
        while time.perf_counter() < ends:
            for _ in range(20):
                square = (square @ square).clamp(-1, 1)
            torch.cuda.synchronize(device)
        after = counters.read()
    finally:
        counters.close()
    assert 0 <= after.gpu_percent <= 100
    assert after.memory_used_bytes >= square.nbytes
    assert after.power_watts is None or after.power_watts > 0
    if before.energy_joules is not None:
        assert after.energy_joules > before.energy_joules
    if after.sm_percent is not None:
        assert 50 < after.sm_percent <= 100
        assert 10 < after.tensor_percent <= 100
        assert 0 < after.sm_occupancy_percent <= 100
        assert 0 <= after.dram_percent <= 100
        assert after.pcie_to_device_mb_s >= 0
        assert after.pcie_from_device_mb_s >= 0
