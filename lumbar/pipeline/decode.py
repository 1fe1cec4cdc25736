"""Pixels of one slice: decoded, MONOCHROME1 inverted, padding found.

The bits above BitsStored are dropped and the sign is carried, whatever the transfer syntax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Bool, Integer
from pydicom.pixels.processing import apply_modality_lut

from lumbar.pipeline.codecs import decompress, drop_bits, find_decoder
from lumbar.pipeline.parse import transfer_syntax
from lumbar.pipeline.reject import Reason, RejectedError


@dataclass(frozen=True, slots=True)
class Picture:
    """Stored values as 8 or 16 bit integers, and which of them are padding (None: none)."""

    values: Integer[np.ndarray, "rows columns"]
    padding: Bool[np.ndarray, "rows columns"] | None


def decode(dataset: pydicom.Dataset, frame: int, *, on_gpu: bool = False) -> Picture:
    """Decode one frame, counted from zero.

    ``on_gpu`` asks the graphics card first where it gives the same values; see
    `lumbar.pipeline.gpu`.

    Raises
    ------
    RejectedError
        If the pixels are cut short, no decoder knows their transfer syntax, or it refuses them.
    """
    syntax = transfer_syntax(dataset)
    uid = find_decoder(syntax).UID
    if uid.is_encapsulated:
        values = decompress(dataset, frame, syntax, on_gpu=on_gpu)
    else:
        values = _read_plain(dataset, frame, is_little=uid.is_little_endian)
    if values.ndim != 2:
        raise RejectedError(Reason.UNDECODABLE, f"the decoder returned shape {values.shape}")
    return _finish(values, dataset)


def _read_plain(dataset: pydicom.Dataset, frame: int, *, is_little: bool) -> Any:
    """Return a frame that is not compressed, without a copy where no bits are dropped."""
    rows, columns, allocated = dataset.Rows, dataset.Columns, dataset.BitsAllocated
    frames = int(dataset.get("NumberOfFrames") or 1)
    size = rows * columns * allocated // 8
    if len(dataset.PixelData) < size * frames:
        raise RejectedError(Reason.TRUNCATED, f"{len(dataset.PixelData)} of {size * frames} bytes")
    kind = "i" if dataset.get("PixelRepresentation") else "u"
    data = dataset.PixelData
    if allocated == 8 and not is_little and dataset["PixelData"].VR == "OW":
        # Bytes in words of two, each of them turned round (PS3.5, section 8.1.1 and annex A.3).
        even = data[: len(data) // 2 * 2]
        data = np.frombuffer(even, "u2").byteswap().tobytes()
    dtype = np.dtype(f"{'<' if is_little else '>'}{kind}{allocated // 8}")
    values = np.frombuffer(data, dtype, rows * columns, frame * size).reshape(rows, columns)
    native = values.astype(dtype.newbyteorder("="), copy=False)
    return drop_bits(native, allocated - int(dataset.get("BitsStored", allocated)))


def _finish(values: Any, dataset: pydicom.Dataset) -> Picture:
    padding = _padding(values, dataset)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        values = _invert(values, dataset.get("BitsStored", values.dtype.itemsize * 8))
    if "ModalityLUTSequence" in dataset and dataset.get("RescaleSlope") is None:
        values = _apply_table(values, dataset)
    return Picture(values, padding)


def _padding(values: Any, dataset: pydicom.Dataset) -> Any:
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    if not isinstance(last, int):
        last = first
    padding = (values >= min(first, last)) & (values <= max(first, last))
    return padding if padding.any() else None


def _invert(values: Any, stored: int) -> Any:
    """Turn MONOCHROME1 round, so that bright is much signal: the bitwise complement."""
    if values.dtype.kind == "i":
        return ~values
    return ~values & values.dtype.type((1 << stored) - 1)


def _apply_table(values: Any, dataset: pydicom.Dataset) -> Any:
    table = np.asarray(apply_modality_lut(values, dataset))
    if table.dtype.kind not in "iu" or table.dtype.itemsize > 2:
        raise RejectedError(Reason.UNSUPPORTED_PIXELS, f"modality table of {table.dtype}")
    return table
