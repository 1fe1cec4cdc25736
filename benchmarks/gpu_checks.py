"""What is looked at before anything is measured on a machine: its packages, and one DALI pipeline.

    python benchmarks/gpu_checks.py packages cuda
    python benchmarks/gpu_checks.py pipeline cuda

`gpu_run.py` runs both. Exit status 0: all is there, and the GPU draws what the CPU draws.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OF_GPU_TESTS = {"beartype", "hypothesis", "pytest", "scipy"}
"""What the tests marked for a GPU need of the extra ``test``; the rest is not asked for."""


def check_packages(device: str) -> str | None:
    """Say what is there; return what is missing, or None."""
    from packaging.requirements import Requirement  # noqa: PLC0415

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(line) for line in project["dependencies"]]
    tests = map(Requirement, project["optional-dependencies"]["test"])
    needed += [requirement for requirement in tests if requirement.name in OF_GPU_TESTS]
    missing = []
    for requirement in needed:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "none"
        _say(f"{requirement.name} {found}")
        fits = found != "none" and requirement.specifier.contains(found, prereleases=True)
        if not fits:
            missing.append(requirement.name)
    for pinned in _pinned(set(missing)):
        _say(f"the bundle needs --also {pinned}")
    _say(f"shared memory: {shutil.disk_usage('/dev/shm').free / 1e9:.1f} GB free")
    return f"missing: {', '.join(missing)}" if missing else _check_imports(device)


def _pinned(names: set[str]) -> Iterator[str]:
    """Yield the tested versions of some packages on this Python."""
    from packaging.requirements import Requirement  # noqa: PLC0415

    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.name in names and (pin.marker is None or pin.marker.evaluate()):
                yield f"{pin.name}{pin.specifier}"


def _check_imports(device: str) -> str | None:
    """Import what was compiled for other versions of its neighbours; look for the GPU."""
    import cv2  # noqa: PLC0415
    import numba  # noqa: PLC0415
    import torch  # noqa: PLC0415

    _say(f"numba {numba.__version__}, opencv {cv2.__version__}, torch {torch.__version__}")
    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    _say(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    return None


def check_pipeline(device: str) -> str | None:
    """Warp slices on the device and on the CPU; return how far they differ, or None."""
    import numpy as np  # noqa: PLC0415
    from nvidia.dali import fn, pipeline_def, types  # noqa: PLC0415

    slices = np.random.default_rng(0).integers(0, 256, (2, 4, 64, 48, 1), np.uint8)
    matrix = np.array([[0.9, 0.1, 2], [-0.1, 0.9, 5]], np.float32)

    def warped(backend: str) -> np.ndarray:
        @pipeline_def(batch_size=2, num_threads=2, device_id=0 if backend == "gpu" else None)
        def define() -> Any:
            image = fn.external_source(lambda: slices, batch=True, layout="FHWC")
            image = image.gpu() if backend == "gpu" else image
            return fn.warp_affine(image, matrix=matrix, fill_value=0, dtype=types.FLOAT)

        (images,) = define().run()
        return np.asarray(images.as_cpu().as_array())

    drawn, reference = warped("gpu" if device == "cuda" else "cpu"), warped("cpu")
    difference = float(np.abs(drawn - reference).max())
    _say(f"{drawn.shape} {drawn.dtype} on the {device}, greatest difference {difference:.5f}")
    return None if difference < 0.05 and drawn.any() else f"differs by {difference}, or is empty"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    """Run the check that is named."""
    name, device = sys.argv[1:]
    found = {"packages": check_packages, "pipeline": check_pipeline}[name](device)
    if found is not None:
        sys.exit(found)


if __name__ == "__main__":
    main()
