"""The GPUs of the machine, and whether torch can use them."""

from __future__ import annotations

import torch

from lumbar.doctor.checks import NO_GPU
from lumbar.doctor.result import CheckResult, Fact, failed, not_measured, passed, told
from lumbar.train.telemetry.installed_gpus import InstalledGpu, NoDriver, find_driver
from lumbar.train.telemetry.unusable_gpu import find_unusable_gpu, sees_gpus


def devices() -> list[torch.device]:
    """Return the GPUs that torch sees."""
    count = torch.cuda.device_count() if sees_gpus() else 0
    return [torch.device("cuda", number) for number in range(count)]


def tell_gpus() -> CheckResult:
    """Return the GPUs with their UUIDs, the driver, and the CUDA versions of torch and DALI."""
    facts = [
        Fact("CUDA of torch", torch.version.cuda or "none: built for the CPU alone"),
        Fact("CUDA of DALI", _cuda_of_dali()),
    ]
    driver = find_driver()
    if isinstance(driver, NoDriver):
        return told((*facts, Fact("NVIDIA driver", f"none ({driver.why})")))
    facts += [
        Fact("NVIDIA driver", driver.version),
        Fact("CUDA of the driver", "{}.{}".format(*driver.cuda)),
        *(Fact(f"GPU {number}", _words(gpu)) for number, gpu in enumerate(driver.gpus)),
    ]
    return told(tuple(facts))


def check_usable_gpu() -> CheckResult:
    """Check that torch can use the GPUs that the driver lists."""
    unusable = find_unusable_gpu()
    if unusable is not None:
        return failed(
            f"{unusable.what}: got {unusable.got}; expected {unusable.expected}", unusable.cure
        )
    seen = devices()
    return passed(f"{len(seen)} seen by torch") if seen else not_measured(NO_GPU)


def _words(gpu: InstalledGpu) -> str:
    memory = (
        "memory of the host" if gpu.memory_bytes is None else f"{gpu.memory_bytes / 1e9:.1f} GB"
    )
    major, minor = gpu.capability
    return f"{gpu.name}, {memory}, compute capability {major}.{minor}, {gpu.uuid}"


def _cuda_of_dali() -> str:
    try:
        from nvidia.dali import backend  # noqa: PLC0415

        # 1000 times the major version, plus a build number.
        return str(int(getattr(backend, "__cuda_version__")) // 1000)  # noqa: B009
    except Exception as error:
        # C++ libraries fail to load in many ways; the other facts are still useful.
        return f"not known: {type(error).__name__}: {error}"
