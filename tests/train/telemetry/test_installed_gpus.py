import pynvml
import pytest

from lumbar.train.telemetry import installed_gpus
from lumbar.train.telemetry.installed_gpus import (
    Driver,
    InstalledGpu,
    NoDriver,
    count_on_bus,
    find_driver,
)


@pytest.fixture
def nvml(monkeypatch):
    """NVML of a machine with one GPU; its functions can be replaced."""
    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "550.54.15",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 12040,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetUUID": lambda _: b"GPU-1",
        "nvmlDeviceGetName": lambda _: "NVIDIA T4",
        "nvmlDeviceGetMemoryInfo": lambda _: type("Memory", (), {"total": 16 * 10**9}),
        "nvmlDeviceGetCudaComputeCapability": lambda _: (7, 5),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)


def refuse(number):
    def ask(*_):
        raise pynvml.NVMLError(number)

    return ask


@pytest.mark.usefixtures("nvml")
def test_driver_and_its_gpus():
    gpu = InstalledGpu("GPU-1", "NVIDIA T4", 16 * 10**9, (7, 5))
    found = find_driver()
    assert found == Driver("550.54.15", (12, 4), (gpu,))
    assert found.major == 550


@pytest.mark.usefixtures("nvml")
def test_gpu_without_memory_of_its_own(monkeypatch):
    refusal = refuse(pynvml.NVML_ERROR_NOT_SUPPORTED)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", refusal)
    assert find_driver().gpus[0].memory_bytes is None


@pytest.mark.parametrize(
    ("number", "kept"),
    [(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, 0), (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, 9)],
)
def test_no_driver_has_a_reason(monkeypatch, number, kept):
    monkeypatch.setattr(pynvml, "nvmlInit", refuse(number))
    found = find_driver()
    assert isinstance(found, NoDriver)
    assert found.error == kept
    assert found.why


def test_gpus_on_the_bus_are_nvidia_display_controllers_of_this_system(tmp_path, monkeypatch):
    monkeypatch.setattr(installed_gpus, "PCI_DEVICES", tmp_path / "devices")
    assert count_on_bus() == 0
    for name, vendor, kind, driver in [
        ("gpu", "0x10de", "0x030200", "nvidia"),
        ("screen", "0x10de", "0x030000", "nouveau"),
        ("sound", "0x10de", "0x040300", "snd_hda_intel"),
        ("other", "0x1002", "0x030000", "amdgpu"),
        ("guest", "0x10de", "0x030200", "vfio-pci"),
    ]:
        device = tmp_path / "devices" / name
        (tmp_path / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
        (device / "driver").symlink_to(tmp_path / "drivers" / driver)
    (tmp_path / "devices" / "bridge").mkdir()
    assert count_on_bus() == 2
