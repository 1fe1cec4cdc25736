"""Check each decoder with a small frame of known values."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from lumbar.doctor.host.frames import FRAMES, Frame
from lumbar.doctor.result import CheckResult, failed, not_measured, passed
from lumbar.pipeline.dicom.codecs import decode_by_each
from lumbar.pipeline.dicom.decode import decode
from lumbar.pipeline.dicom.gpu_decode import find_gpu_problem
from lumbar.pipeline.dicom.parse import parse
from lumbar.pipeline.reject import RejectedError

PACKAGES = ("imagecodecs", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg",
            "pylibjpeg-rle")  # fmt: skip
"""The packages that decode."""


def check_decoder(name: str) -> CheckResult:
    """Decode the frames of a decoder as `lumbar preprocess` does, then with each package alone."""
    right: set[str] = set()
    for frame in FRAMES[name]:
        wrong = _wrong(frame, right)
        if wrong:
            cure = f"uv pip install --reinstall {' '.join(PACKAGES)}"
            return failed(f"transfer syntax {frame.syntax}: {wrong}", cure)
    return passed(" and ".join(sorted(right)) or "values as stored")


def check_gpu_decoder(_: Any) -> CheckResult:
    """Run the test of ``--decode gpu``: decode a picture on the GPU and compare it."""
    if not _is_installed("nvidia.nvimgcodec"):
        return not_measured("nvImageCodec is not installed; --decode gpu needs it, nothing else")
    problem = find_gpu_problem()
    if problem:
        return failed(problem, "do without --decode gpu: the CPU decodes the same values")
    return passed("a JPEG 2000 picture as encoded")


def _wrong(frame: Frame, right: set[str]) -> str:
    """Return what is wrong with a frame's values, or ""; add the packages that are right."""
    dataset = parse(frame.file())
    try:
        difference = _difference(decode(dataset, 0).values, frame)
    except RejectedError as error:
        return str(error)
    if difference:
        return difference
    if frame.is_compressed:
        for package, values in decode_by_each(dataset, 0, frame.syntax).items():
            if values is None:
                return f"{package} does not decode it"
            difference = _difference(values, frame)
            if difference:
                return f"{package}: {difference}"
            right.add(package)
    return ""


def _difference(values: Any, frame: Frame) -> str:
    if values.shape != frame.values.shape:
        return f"shape {values.shape}, expected {frame.values.shape}"
    most = int(np.abs(values.astype(np.int64) - frame.values).max())
    return f"values differ by up to {most}" if most > frame.tolerance else ""


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
