"""``--decode gpu``: nvImageCodec's plugin for pydicom, used only after it has decoded a test frame.

On a machine without a GPU the plugin registers itself as available and fails later, on decoding. So
CUDA is asked first, then a small picture is decoded and compared.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
from pydicom.pixels.decoders.base import get_decoder

from lumbar.pipeline.reject import describe

GPU_PLUGIN = "0.8.0+nvimgcodec"
"""The plugin's name in pydicom, as `nvidia.nvimgcodec.tools.dicom.pydicom_plugin` registers it."""

GPU_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (57, 70, 90, 91, 201, 202, 203))
"""Lossless JPEG, JPEG 2000 and its high-throughput form. Frames whose decoding rounds are left to
the CPU, so that a cache does not depend on the machine that made it."""

_log = logging.getLogger(__name__)

_CUDA_LIBRARY = "libcuda.so.1"


@cache
def find_gpu_problem() -> str:
    """Return why no GPU decodes in this process, or register the plugin and return "".

    Each worker process calls it: it may have no GPU although its parent has one.
    """
    try:
        problem = _find_cuda_problem()
        if problem:
            return problem
        from nvidia import nvimgcodec  # noqa: PLC0415  # loads CUDA libraries
        from nvidia.nvimgcodec.tools.dicom import pydicom_plugin  # noqa: PLC0415

        picture = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
        stream = imagecodecs.jpeg2k_encode(picture, codecformat="j2k", reversible=True)
        params = nvimgcodec.DecodeParams(
            allow_any_depth=True, color_spec=nvimgcodec.ColorSpec.UNCHANGED
        )
        decoder = nvimgcodec.Decoder(backends=[nvimgcodec.Backend(kind) for kind in _gpu_kinds()])
        decoded = decoder.decode(stream, params=params)
        if decoded is None:
            return "nvImageCodec gave no picture back"
        if not np.array_equal(np.asarray(decoded.cpu()).reshape(64, 64), picture):
            return "nvImageCodec gave another picture back"
        if not pydicom_plugin.register():
            return "pydicom does not take nvImageCodec's plugin"
        plugins = get_decoder("1.2.840.10008.1.2.4.90").available_plugins
    except Exception as error:
        # Drivers and their libraries raise anything, and the CPU decodes as well.
        return describe(error)
    return "" if GPU_PLUGIN in plugins else f"nvImageCodec's plugin is not among {plugins}"


def _gpu_kinds() -> list[Any]:
    """Return nvImageCodec's kinds of back ends that use a GPU; by default it also uses the CPU."""
    from nvidia import nvimgcodec  # noqa: PLC0415  # loads CUDA libraries

    kind = nvimgcodec.BackendKind
    return [kind.GPU_ONLY, kind.HYBRID_CPU_GPU, kind.HW_GPU_ONLY]


def warn_without_gpu() -> None:
    """Warn in the log if the CPU decodes although a GPU was requested."""
    problem = find_gpu_problem()
    if problem:
        _log.warning("--decode gpu: the CPU decodes, for %s", problem)


def _find_cuda_problem() -> str:
    """Return "" if the CUDA driver is installed, starts and has a device, else the problem."""
    try:
        cuda = ctypes.CDLL(_CUDA_LIBRARY)
    except OSError:
        return f"no CUDA driver: {_CUDA_LIBRARY} is not there"
    status = int(cuda.cuInit(0))
    if status:
        return f"the CUDA driver does not start: error {status}"
    count = ctypes.c_int()
    status = int(cuda.cuDeviceGetCount(ctypes.byref(count)))
    return "" if status == 0 and count.value else "the CUDA driver has no device"
