"""A GPU that torch cannot use is named with what to do; one that it can use is not."""

import pynvml
import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.train.run.device import find_idle_gpu, resolve_device
from lumbar.train.telemetry import unusable_gpu
from lumbar.train.telemetry.installed_gpus import Driver, InstalledGpu, NoDriver
from lumbar.train.telemetry.unusable_gpu import find_unusable_gpu, install_line

GPU = InstalledGpu("GPU-1", "NVIDIA RTX A4000", 16 * 10**9, (8, 6))


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes a machine: its driver, and torch's build, which sees no GPU."""

    def make(version="550.54.15", *, cuda="13.2", why_none=None, gpus=(GPU,), on_bus=0):
        driver = why_none or Driver(version, (12, 4), gpus)
        monkeypatch.setattr(unusable_gpu, "find_driver", lambda: driver)
        monkeypatch.setattr(unusable_gpu, "count_on_bus", lambda: on_bus)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)

    return make


def test_driver_550_beside_a_build_for_cuda_13(machine):
    machine("550.54.15", cuda="13.2")
    found = find_unusable_gpu()
    assert found.what == "the NVIDIA driver is older than this build of torch needs"
    assert "NVIDIA RTX A4000, driver 550.54.15" in found.got
    assert "driver 580 or newer" in found.expected
    assert "CUDA 12: uv pip install" in found.cure
    assert "--torch-backend=cu126" in found.cure
    assert "update the driver to 580" in found.cure


def test_driver_too_old_for_any_build(machine):
    machine("470.82.01", cuda="12.6")
    found = find_unusable_gpu()
    assert "driver 525 or newer" in found.expected
    assert found.cure == "update the driver to 580 or newer"


@pytest.mark.parametrize(("version", "backend"), [("535.1", "cu126"), ("580.65.06", "cu130")])
def test_build_for_the_cpu_alone(machine, version, backend):
    machine(version, cuda=None)
    found = find_unusable_gpu()
    assert found.what == "torch is built for the CPU alone"
    assert f"--torch-backend={backend}" in found.cure


def test_gpu_that_is_hidden(machine, monkeypatch):
    machine("580.65.06")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    found = find_unusable_gpu()
    assert found.what == "CUDA_VISIBLE_DEVICES hides the NVIDIA GPU"
    assert "unset CUDA_VISIBLE_DEVICES" in found.cure


def test_another_reason_is_the_one_that_torch_gives(machine, monkeypatch):
    machine("580.65.06")

    def fail():
        message = "CUDA unknown error\nand more"
        raise RuntimeError(message)

    monkeypatch.setattr(torch.cuda, "current_device", fail)
    found = find_unusable_gpu()
    assert found.what == "torch cannot start CUDA"
    assert found.got.startswith("CUDA unknown error; NVIDIA RTX A4000")
    assert "nvidia_uvm" in found.cure


def test_driver_that_was_updated_while_it_ran(machine):
    mismatch = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    machine(why_none=NoDriver("Driver/library version mismatch", mismatch))
    assert "restart the machine" in find_unusable_gpu().cure


def test_gpu_on_the_bus_without_a_driver(machine):
    machine(why_none=NoDriver("Driver Not Loaded", 9), on_bus=2)
    found = find_unusable_gpu()
    assert found.got == "2 on the bus; Driver Not Loaded"
    assert "--gpus all" in found.cure


@pytest.mark.parametrize("options", [{"why_none": NoDriver("no library", 0)}, {"gpus": ()}])
def test_machine_without_a_gpu_has_none_that_cannot_be_used(machine, options):
    machine(**options)
    assert find_unusable_gpu() is None


@pytest.mark.parametrize(
    ("capability", "built", "usable"),
    [
        ((8, 6), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90a"], True),
        ((7, 0), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
    ],
)
def test_gpu_that_torch_has_no_code_for(machine, monkeypatch, capability, built, usable):
    machine("580.65.06")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    found = find_unusable_gpu()
    assert (found is None) == usable
    if not usable:
        newer = capability > (9, 0)
        assert found.cure == ("install a newer torch" if newer else install_line(12))


def test_auto_takes_the_cpu_and_the_reason_is_given(machine, monkeypatch):
    machine()
    assert resolve_device("auto") == torch.device("cpu")
    assert "550.54.15" in str(find_idle_gpu("auto"))
    assert find_idle_gpu("cpu") is None
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_idle_gpu("auto") is None


def test_cuda_by_name_is_refused_with_the_reason(machine):
    machine()
    with pytest.raises(InputError, match=r"--device cuda:0; got NVIDIA RTX A4000.*cu126"):
        resolve_device("cuda:0")


def test_one_gpu_for_all_processes_of_torchrun_is_refused(machine, monkeypatch):
    machine()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert resolve_device("cuda:2") == torch.device("cuda", 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(InputError, match=r"one GPU for several processes.*leave the number out"):
        resolve_device("cuda:2")
    assert resolve_device("cuda") == torch.device("cuda", 3)
