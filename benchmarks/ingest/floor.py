"""The floor: each file is read once and its pixels decoded, by the fastest decoder installed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ingest.files import SeriesFiles

Decode = Callable[[bytes, int], Any]

TRIALS = 5


def decode_raw(pixels: bytes, side: int) -> Any:
    """Uncompressed pixels are there already."""
    return np.frombuffer(pixels, "<u2").reshape(side, side)


def rle_by_pylibjpeg(pixels: bytes, side: int) -> Any:
    """Decode RLE with pylibjpeg-rle."""
    from rle.rle import decode_frame  # noqa: PLC0415

    return decode_frame(pixels, side * side, 16, "<")


def rle_by_imagecodecs(pixels: bytes, side: int) -> Any:
    """Decode RLE with imagecodecs."""
    from imagecodecs import dicomrle_decode  # noqa: PLC0415

    return dicomrle_decode(pixels, "<u2")


def jpeg2000_by_pylibjpeg(pixels: bytes, side: int) -> Any:
    """Decode JPEG 2000 with pylibjpeg-openjpeg."""
    from openjpeg.utils import decode_pixel_data  # noqa: PLC0415

    return decode_pixel_data(pixels, version=2)


def jpeg2000_by_imagecodecs(pixels: bytes, side: int) -> Any:
    """Decode JPEG 2000 with imagecodecs."""
    from imagecodecs import jpeg2k_decode  # noqa: PLC0415

    return jpeg2k_decode(pixels, numthreads=1)


DECODERS: dict[str, dict[str, Decode]] = {
    "raw": {"numpy": decode_raw},
    "rle": {"pylibjpeg-rle": rle_by_pylibjpeg, "imagecodecs": rle_by_imagecodecs},
    "jpeg2000": {
        "pylibjpeg-openjpeg": jpeg2000_by_pylibjpeg,
        "imagecodecs": jpeg2000_by_imagecodecs,
    },
}


@dataclass(frozen=True, slots=True)
class FloorTask:
    """A series, and the name of the decoder for it."""

    series: SeriesFiles
    decoder: str


def read_and_decode(task: FloorTask) -> int:
    """Read and decode a series; return its files."""
    kind = task.series.kind
    decode = DECODERS[kind.syntax][task.decoder]
    for file in task.series.files:
        data = file.path.read_bytes()
        decode(data[file.start : file.stop] if file.start else data, kind.side)
    return len(task.series.files)


def fastest_decoder(series: SeriesFiles) -> tuple[str, Mapping[str, float]]:
    """Return the decoder that is fastest on a series, and each one's milliseconds a file."""
    times: dict[str, float] = {}
    for name in DECODERS[series.kind.syntax]:
        if name == "imagecodecs" and find_spec(name) is None:
            continue
        task = FloorTask(series, name)
        trials = []
        for _ in range(TRIALS + 1):
            started = time.perf_counter()
            read_and_decode(task)
            trials.append(time.perf_counter() - started)
        times[name] = 1000 * min(trials[1:]) / len(series.files)
    return min(times, key=times.__getitem__), times
