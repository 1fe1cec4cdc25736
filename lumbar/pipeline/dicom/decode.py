"""Pixels of one slice: decoded, MONOCHROME1 inverted, padding found.

The bits above BitsStored are dropped and the sign is carried, whatever the transfer syntax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Bool, Integer
from pydicom.uid import ExplicitVRBigEndian

from lumbar.pipeline.dicom.codecs import (
    decompress,
    decompress_by_contents,
    drop_bits,
    find_decoder,
    has_decoder,
)
from lumbar.pipeline.dicom.elements import integer, same_bits, value_of
from lumbar.pipeline.dicom.parse import transfer_syntax
from lumbar.pipeline.reject import Reason, RejectedError


@dataclass(frozen=True, slots=True)
class Picture:
    """Stored values as 8 or 16 bit integers, and which of them are padding (None: none)."""

    values: Integer[np.ndarray, "rows columns"]
    padding: Bool[np.ndarray, "rows columns"] | None


def decode(dataset: pydicom.Dataset, frame: int, *, on_gpu: bool = False) -> Picture:
    """Decode one frame, counted from zero.

    ``on_gpu`` asks the graphics card first where it gives the same values; see
    `lumbar.pipeline.dicom.gpu_decode`.

    Raises
    ------
    RejectedError
        If the pixels are cut short, no decoder knows their transfer syntax, or it refuses them.
    """
    syntax = transfer_syntax(dataset)
    is_little = syntax != ExplicitVRBigEndian
    if not has_decoder(syntax):
        values = decompress_by_contents(dataset, frame, syntax)
    elif find_decoder(syntax).UID.is_encapsulated:
        values = decompress(dataset, frame, syntax, on_gpu=on_gpu)
    else:
        values = _read_plain(dataset, frame, is_little=is_little)
    if values.shape != (dataset.Rows, dataset.Columns):
        raise RejectedError(Reason.UNDECODABLE, f"the decoder returned shape {values.shape}")
    return _finish(values, dataset, is_little=is_little)


def _read_plain(dataset: pydicom.Dataset, frame: int, *, is_little: bool) -> Any:
    """Return a frame that is not compressed, without a copy where no bits are dropped."""
    rows, columns, allocated = dataset.Rows, dataset.Columns, dataset.BitsAllocated
    frames = int(value_of(dataset, "NumberOfFrames") or 1)
    size = rows * columns * allocated // 8
    if len(dataset.PixelData) < size * frames:
        raise RejectedError(Reason.TRUNCATED, f"{len(dataset.PixelData)} of {size * frames} bytes")
    kind = "i" if value_of(dataset, "PixelRepresentation") else "u"
    data = dataset.PixelData
    if allocated == 8 and not is_little and dataset["PixelData"].VR == "OW":
        # Bytes in words of two, each of them turned round (PS3.5, section 8.1.1 and annex A.3).
        even = data[: len(data) // 2 * 2]
        data = np.frombuffer(even, "u2").byteswap().tobytes()
    dtype = np.dtype(f"{'<' if is_little else '>'}{kind}{allocated // 8}")
    values = np.frombuffer(data, dtype, rows * columns, frame * size).reshape(rows, columns)
    native = values.astype(dtype.newbyteorder("="), copy=False)
    return drop_bits(native, allocated - int(value_of(dataset, "BitsStored", allocated)))


def _finish(values: Any, dataset: pydicom.Dataset, *, is_little: bool) -> Picture:
    stored = int(value_of(dataset, "BitsStored", values.dtype.itemsize * 8))
    padding = _padding(values, dataset, stored)
    if "ModalityLUTSequence" in dataset and value_of(dataset, "RescaleSlope") is None:
        item = dataset.ModalityLUTSequence[0]
        values, stored = _apply_table(values, item, stored, is_little=is_little)
    if value_of(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        values = _invert(values, stored)
    return Picture(values, padding)


def _padding(values: Any, dataset: pydicom.Dataset, stored: int) -> Any:
    """Return which pixels have the bits of PixelPaddingValue or lie in its range, None for none."""
    first = integer(dataset, "PixelPaddingValue")
    if first is None:
        return None
    last = integer(dataset, "PixelPaddingRangeLimit")
    allocated, is_signed = 8 * values.dtype.itemsize, values.dtype.kind == "i"
    least, greatest = sorted(
        same_bits(one, stored, allocated, is_signed=is_signed)
        for one in (first, first if last is None else last)
    )
    padding = (values >= least) & (values <= greatest)
    return padding if padding.any() else None


def _invert(values: Any, stored: int) -> Any:
    """Turn MONOCHROME1 round, so that bright is much signal: the bitwise complement."""
    if values.dtype.kind == "i":
        return ~values
    return ~values & values.dtype.type((1 << stored) - 1)


def _apply_table(
    values: Any, item: pydicom.Dataset, stored: int, *, is_little: bool
) -> tuple[Any, int]:
    """Return what a modality table makes of values, and the bits of that (PS3.3, C.11.1.1)."""
    length, first, bits = map(int, item.LUTDescriptor)
    length = length & 0xFFFF or 2**16
    # The descriptor may be read with a sign or without one.
    first = same_bits(first, stored, 16, is_signed=values.dtype.kind == "i")
    entries = item.LUTData
    if isinstance(entries, bytes):
        is_packed = bits <= 8 and len(entries) < 2 * length
        entries = np.frombuffer(entries, "u1" if is_packed else "<u2" if is_little else ">u2")
    table = np.atleast_1d(entries).astype(np.uint16)
    if not 1 <= bits <= 16 or len(table) < length:
        raise RejectedError(
            Reason.UNSUPPORTED_PIXELS, f"modality table of {len(table)} of {length} x {bits} bits"
        )
    index = np.clip(values.astype(np.int32) - first, 0, length - 1)
    return table[index], bits
