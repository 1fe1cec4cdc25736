"""The NVIDIA GPUs of this machine according to the driver and the bus, not to torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

PCI_DEVICES = Path("/sys/bus/pci/devices")

_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"
"""The PCI class of display controllers, to which GPUs for computing belong too."""
_HANDED_TO_A_GUEST = "vfio-pci"


@dataclass(frozen=True, slots=True)
class InstalledGpu:
    """One GPU; ``capability`` is CUDA's compute capability (major, minor).

    ``memory_bytes`` is None if it shares the host's.
    """

    uuid: str
    name: str
    memory_bytes: int | None
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver, such as 550.54.15; ``cuda`` is the newest CUDA it supports, (major, minor)."""

    version: str
    cuda: tuple[int, int]
    gpus: tuple[InstalledGpu, ...]

    @property
    def major(self) -> int:
        """The driver's branch: 550."""
        return int(self.version.partition(".")[0])


@dataclass(frozen=True, slots=True)
class NoDriver:
    """NVML does not start: the reason, and its error number (0 without the library)."""

    why: str
    error: int


def find_driver() -> Driver | NoDriver:
    """Query NVML for the driver and its GPUs."""
    try:
        with _nvml():
            return Driver(
                version=_text(pynvml.nvmlSystemGetDriverVersion()),
                cuda=_cuda_version(),
                gpus=tuple(
                    _describe(pynvml.nvmlDeviceGetHandleByIndex(number))
                    for number in range(pynvml.nvmlDeviceGetCount())
                ),
            )
    except pynvml.NVMLError as error:
        missing = error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        return NoDriver(str(error), 0 if missing else int(error.value))


def count_on_bus() -> int:
    """Count the NVIDIA GPUs on the PCI bus, without those of virtual machines."""
    return sum(_is_gpu(device) for device in _pci_devices())


def _pci_devices() -> list[Path]:
    try:
        return sorted(PCI_DEVICES.iterdir())
    except OSError:
        return []


def _is_gpu(device: Path) -> bool:
    try:
        vendor, kind = (device / name for name in ("vendor", "class"))
        if vendor.read_text().strip() != _NVIDIA:
            return False
        if not kind.read_text().startswith(_DISPLAY_CLASS):
            return False
    except OSError:
        return False
    return (device / "driver").resolve().name != _HANDED_TO_A_GUEST


@contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _cuda_version() -> tuple[int, int]:
    number = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    return number // 1000, number % 1000 // 10


def _describe(handle: Any) -> InstalledGpu:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return InstalledGpu(
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        memory_bytes=_memory_bytes(handle),
        capability=(int(major), int(minor)),
    )


def _memory_bytes(handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:  # it shares the host's
            return None
        raise


def _text(value: Any) -> str:
    """Return text; some versions of pynvml give bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
