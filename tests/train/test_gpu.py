import threading
import time
from types import SimpleNamespace

import pynvml
import pytest
import torch

from lumbar.train.gpu import UtilisationSampler


def wait_until(condition):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("nothing came within two seconds")


@pytest.fixture
def nvml(monkeypatch):
    """A driver with two devices; CUDA's second is NVML's first."""
    state = SimpleNamespace(figures=iter(range(10, 10**6, 10)), open=0, fail=False, taken=0)

    def init():
        state.open += 1

    def shut():
        state.open -= 1

    def rates(handle):
        if state.fail:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        assert handle == "handle of GPU-uuid-1"
        state.taken += 1
        return SimpleNamespace(gpu=next(state.figures))

    monkeypatch.setattr(pynvml, "nvmlInit", init)
    monkeypatch.setattr(pynvml, "nvmlShutdown", shut)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: f"handle of {uuid}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", rates)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"uuid-{index}")
    )
    monkeypatch.setattr("lumbar.train.gpu.INTERVAL_SECONDS", 0.002)
    return state


def test_a_cpu_is_not_measured_and_costs_no_thread():
    before = threading.active_count()
    with UtilisationSampler(torch.device("cpu")) as sampler:
        assert threading.active_count() == before
        assert sampler.percent() is None
    assert sampler.percent() is None


def test_the_mean_is_since_the_last_call_and_of_the_device_by_its_uuid(nvml):
    with UtilisationSampler(torch.device("cuda:1")) as sampler:
        wait_until(lambda: nvml.taken >= 5)
        first = sampler.percent()
        seen = nvml.taken
        wait_until(lambda: nvml.taken >= seen + 5)
    second = sampler.percent()
    assert first >= 30
    # Every figure is larger than all those before.
    assert second > 2 * first - 10
    assert sampler.percent() is None
    assert nvml.open == 0


def test_a_driver_that_fails_measures_nothing_and_stops_nothing(nvml, monkeypatch):
    nvml.fail = True
    with UtilisationSampler(torch.device("cuda:1")) as sampler:
        wait_until(lambda: not sampler._thread.is_alive())
        assert sampler.percent() is None
    assert nvml.open == 0

    def absent():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    with UtilisationSampler(torch.device("cuda")) as sampler:
        wait_until(lambda: not sampler._thread.is_alive())
    assert sampler.percent() is None
    assert nvml.open == 0
