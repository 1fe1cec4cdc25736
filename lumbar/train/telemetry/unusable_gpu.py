"""An NVIDIA GPU that torch cannot use: the reason, and what to install or to change.

Torch itself only reports that there is no GPU, and works on the CPU.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import pynvml
import torch

from lumbar.train.telemetry.installed_gpus import Driver, NoDriver, count_on_bus, find_driver

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""The oldest driver branch for each major version of CUDA that torch may be built for (NVIDIA, CUDA
compatibility, minor version compatibility)."""

BACKEND_OF_CUDA = {12: "cu126", 13: "cu130"}
"""The build of torch to install for a driver that supports a major version of CUDA."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class UnusableGpu:
    """Why torch cannot use a GPU of this machine."""

    what: str
    got: str
    expected: str
    cure: str

    def __str__(self) -> str:
        return f"{self.what}: got {self.got}; expected {self.expected}; {self.cure}"


def find_unusable_gpu() -> UnusableGpu | None:
    """Return why torch cannot use this machine's NVIDIA GPU; None if it can, or there is none."""
    driver = find_driver()
    if isinstance(driver, NoDriver):
        return _without_driver(driver)
    if not driver.gpus:
        return None
    return _without_kernels(driver) if sees_gpus() else _not_seen(driver)


def sees_gpus() -> bool:
    """Return whether torch sees a GPU, without its warnings: see `find_unusable_gpu`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.is_available() and torch.cuda.device_count() > 0


def install_line(major: int) -> str:
    """Return the command that installs torch built for a major version of CUDA."""
    return (
        "uv pip install --reinstall-package torch --reinstall-package torchvision "
        f"torch torchvision --torch-backend={BACKEND_OF_CUDA[major]}"
    )


def _without_driver(driver: NoDriver) -> UnusableGpu | None:
    if driver.error == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return UnusableGpu(
            what="the NVIDIA driver does not start",
            got=driver.why,
            expected="a library and a kernel module of one version",
            cure="restart the machine: the driver was updated while it ran",
        )
    found = count_on_bus()
    if not found:
        return None
    return UnusableGpu(
        what="an NVIDIA GPU without a driver",
        got=f"{found} on the bus; {driver.why}",
        expected="a driver that answers",
        cure="install the driver, 580 or newer, and restart; in a container, start it with the "
        "GPU (--gpus all)",
    )


def _not_seen(driver: Driver) -> UnusableGpu:
    gpus = f"{driver.gpus[0].name}, driver {driver.version}"
    needed = _cuda_of_torch()
    if needed is None:
        return UnusableGpu(
            what="torch is built for the CPU alone",
            got=f"torch {torch.__version__} beside {gpus}",
            expected="a build of torch for CUDA",
            cure=_install_cure(driver),
        )
    least = LEAST_DRIVER.get(needed, max(LEAST_DRIVER.values()))
    if driver.major < least:
        return UnusableGpu(
            what="the NVIDIA driver is older than this build of torch needs",
            got=gpus,
            expected=f"driver {least} or newer for torch {torch.__version__} (CUDA {needed})",
            cure=_install_cure(driver),
        )
    hidden = os.environ.get(VISIBLE)
    if hidden is not None:
        return UnusableGpu(
            what=f"{VISIBLE} hides the NVIDIA GPU",
            got=f"{VISIBLE}={hidden!r} beside {gpus}",
            expected="the numbers or UUIDs of GPUs, such as 0",
            cure=f"unset {VISIBLE}; to run on the CPU, use --device cpu",
        )
    return UnusableGpu(
        what="torch cannot start CUDA",
        got=f"{_why_not_started()}; {gpus}",
        expected="CUDA to start",
        cure="run nvidia-smi; load the module nvidia_uvm (sudo modprobe nvidia_uvm) or "
        "restart; in a container, start it with --gpus all",
    )


def _without_kernels(driver: Driver) -> UnusableGpu | None:
    """Find a GPU that torch sees but has no machine code for."""
    built = torch.cuda.get_arch_list()
    for number in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(number)
        if not built or _has_code(capability, built):
            continue
        name = torch.cuda.get_device_name(number)
        newer = all(_numbers(arch) < capability for arch in built)
        cure = "install a newer torch" if newer else install_line(12)
        return UnusableGpu(
            what="this build of torch has no code for the GPU",
            got=f"{name}, compute capability {capability[0]}.{capability[1]}, driver "
            f"{driver.version}",
            expected=f"one of {', '.join(built)}",
            cure=cure,
        )
    return None


def _has_code(capability: tuple[int, int], built: list[str]) -> bool:
    """Machine code runs on its major version from its minor version on; PTX on all newer ones."""
    return any(
        _numbers(arch) <= capability
        and (arch.startswith("compute_") or _numbers(arch)[0] == capability[0])
        for arch in built
    )


def _numbers(arch: str) -> tuple[int, int]:
    """Parse the compute capability of a name such as sm_90a or compute_120."""
    digits = "".join(sign for sign in arch.partition("_")[2] if sign.isdecimal())
    return int(digits[:-1]), int(digits[-1])


def _cuda_of_torch() -> int | None:
    """Return the major version of the CUDA that torch is built for."""
    version = torch.version.cuda
    return None if version is None else int(version.partition(".")[0])


def _install_cure(driver: Driver) -> str:
    fitting = [m for m in BACKEND_OF_CUDA if driver.major >= LEAST_DRIVER[m]]
    if not fitting:
        return f"update the driver to {LEAST_DRIVER[max(LEAST_DRIVER)]} or newer"
    cure = f"install a torch build for CUDA {max(fitting)}: {install_line(max(fitting))}"
    if max(fitting) == max(BACKEND_OF_CUDA):
        return cure
    return f"{cure}; or update the driver to {LEAST_DRIVER[max(LEAST_DRIVER)]} or newer"


def _why_not_started() -> str:
    """Return torch's error when it starts CUDA."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.current_device()
    except Exception as error:  # any error is the reason
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return "it starts and has no device"
