"""What is told of a machine."""

import os

import pytest

from lumbar import __version__
from lumbar.cache.errors import MissingError
from lumbar.doctor.machine import cache as here_cache
from lumbar.doctor.machine import facts as here
from lumbar.doctor.machine import gpus as here_gpus
from lumbar.doctor.machine.cache import tell_cache
from lumbar.doctor.machine.facts import tell_cores_and_memory, tell_files, tell_versions
from lumbar.doctor.machine.gpus import check_usable_gpu, tell_gpus
from lumbar.train.telemetry import unusable_gpu
from lumbar.train.telemetry.installed_gpus import Driver, InstalledGpu, NoDriver

GPU = InstalledGpu("GPU-0c0b2bc2-1", "NVIDIA RTX A4000", 16 * 10**9, (8, 6))


def told(result):
    return {fact.name: fact.value for fact in result.facts}


def test_versions():
    found = told(tell_versions())
    assert found["lumbar"] == __version__
    assert not {name for name, value in found.items() if value == "not installed"}


def test_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(here, "PACKAGES", {"x": "no-such-package-of-ours"})
    assert told(tell_versions())["x"] == "not installed"


def test_cores_and_memory(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(here, "quota_cores", lambda: 2.5)
    monkeypatch.setattr(here, "memory_limit_bytes", lambda: 8 * 10**9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    found = told(tell_cores_and_memory())
    assert found["cores of this process"] == "6 (affinity)"
    assert found["quota of the group"] == "2.5 cores"
    assert found["LOCAL_WORLD_SIZE"] == "2"
    assert found["limit of the group"] == "8.0 GB"


def test_files():
    assert {"open files", "temporary folder", "its room"} <= told(tell_files()).keys()


def test_cache(tiny_cache, monkeypatch):
    forgotten = []
    monkeypatch.setattr(here_cache, "forget_files", forgotten.extend)
    monkeypatch.setattr(here_cache, "memory_bytes", lambda: 2 * (5 * 96 * 80 + 4 * 72 * 64))
    found = told(tell_cache(tiny_cache))
    assert found["cache"] == "2 series, 0.00 GB (fast)"
    assert found["of the memory"] == "50%"
    assert found["cold reading"].endswith("MB/s, one thread (0 MB read)")
    assert len(forgotten) == 2


def test_reading_is_bounded(tiny_cache, monkeypatch):
    forgotten = []
    monkeypatch.setattr(here_cache, "forget_files", forgotten.extend)
    monkeypatch.setattr(here_cache, "MOST_BYTES", 1)
    tell_cache(tiny_cache)
    assert len(forgotten) == 1


def test_cache_that_is_not_there(tmp_path):
    with pytest.raises(MissingError):
        tell_cache(tmp_path / "none")


@pytest.fixture
def driver_550(monkeypatch):
    """A GPU behind a driver that is too old for this torch."""
    driver = Driver("550.54.15", (12, 4), (GPU,))
    monkeypatch.setattr(here_gpus, "find_driver", lambda: driver)
    monkeypatch.setattr(unusable_gpu, "find_driver", lambda: driver)
    monkeypatch.setattr(unusable_gpu.torch.version, "cuda", "13.2")
    monkeypatch.setattr(unusable_gpu.torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("driver_550")
def test_gpu_that_torch_cannot_use():
    found = check_usable_gpu()
    assert found.state == "fail"
    assert "driver 550.54.15; expected driver 580" in found.found
    assert "--torch-backend=cu126" in found.cure


@pytest.mark.usefixtures("driver_550")
def test_gpus_are_told_by_uuid():
    found = told(tell_gpus())
    assert found["CUDA of torch"] == "13.2"
    assert found["CUDA of DALI"] == "12"
    assert found["NVIDIA driver"] == "550.54.15"
    assert found["CUDA of the driver"] == "12.4"
    assert found["GPU 0"] == "NVIDIA RTX A4000, 16.0 GB, compute capability 8.6, GPU-0c0b2bc2-1"


def test_machine_without_a_gpu(monkeypatch):
    none = NoDriver("no library", 0)
    monkeypatch.setattr(here_gpus, "find_driver", lambda: none)
    monkeypatch.setattr(here_gpus, "find_unusable_gpu", lambda: None)
    monkeypatch.setattr(here_gpus, "sees_gpus", lambda: False)
    assert told(tell_gpus())["NVIDIA driver"] == "none (no library)"
    assert check_usable_gpu().state == "not measured"
