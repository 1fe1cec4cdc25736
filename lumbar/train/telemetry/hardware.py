"""What was measured on: processor, memory, GPU, versions. No host names, no paths."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pynvml
import torch
from nvidia import dali

from lumbar import __version__
from lumbar.train.telemetry.cpu import usable_cores


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return hardware and versions as they stand in a report's context."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _proc_value(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": usable_cores(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(psutil.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "gpu_driver": _gpu_driver() if device.type == "cuda" else None,
        "versions": {
            "lumbar": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "dali": dali.__version__,
            "opencv": cv2.__version__,
        },
    }


def _proc_value(path: Path, key: str) -> str | None:
    """Return the first value of a key in a file of ``key : value`` lines."""
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _gpu_driver() -> str | None:
    try:
        pynvml.nvmlInit()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return driver
