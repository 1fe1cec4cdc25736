"""Pixels of one slice: decoded, MONOCHROME1 inverted, padding found.

In every transfer syntax the bits above BitsStored are dropped and the sign is extended.
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
from lumbar.pipeline.dicom.elements import (
    bits_stored,
    dtype_of,
    frame_count,
    integer,
    same_bits,
    value_of,
)
from lumbar.pipeline.dicom.parse import transfer_syntax
from lumbar.pipeline.reject import Reason, RejectedError


@dataclass(frozen=True, slots=True)
class Picture:
    """Stored values as 8 or 16 bit integers, and a mask of padding, None if there is none."""

    values: Integer[np.ndarray, "rows columns"]
    padding: Bool[np.ndarray, "rows columns"] | None


def decode(dataset: pydicom.Dataset, frame: int, *, on_gpu: bool = False) -> Picture:
    """Decode one frame, counted from zero.

    ``on_gpu`` asks the GPU first where it gives the same values; see
    `lumbar.pipeline.dicom.gpu_decode`.

    Raises
    ------
    RejectedError
        If the pixels are truncated, or no decoder knows their transfer syntax or reads them.
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
    """Return an uncompressed frame, without a copy if no bits are dropped."""
    size = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    data, frames = dataset.PixelData, frame_count(dataset)
    if len(data) < size * frames:
        raise RejectedError(Reason.TRUNCATED, f"{len(data)} of {size * frames} bytes")
    if dataset.BitsAllocated == 8 and not is_little and dataset["PixelData"].VR == "OW":
        # Pairs of bytes are words in reversed order (PS3.5, section 8.1.1 and annex A.3).
        data = np.frombuffer(data[: len(data) // 2 * 2], "u2").byteswap().tobytes()
    native = dtype_of(dataset)
    dtype = native.newbyteorder("<" if is_little else ">")
    values = np.frombuffer(data, dtype, dataset.Rows * dataset.Columns, frame * size)
    values = values.reshape(dataset.Rows, dataset.Columns).astype(native, copy=False)
    return drop_bits(values, dataset.BitsAllocated - bits_stored(dataset))


def _finish(values: Any, dataset: pydicom.Dataset, *, is_little: bool) -> Picture:
    stored = bits_stored(dataset)
    padding = _padding(values, dataset, stored)
    if "ModalityLUTSequence" in dataset and value_of(dataset, "RescaleSlope") is None:
        item = dataset.ModalityLUTSequence[0]
        values, stored = _apply_table(values, item, stored, is_little=is_little)
    if value_of(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        values = _invert(values, stored)
    return Picture(values, padding)


def _padding(values: Any, dataset: pydicom.Dataset, stored: int) -> Any:
    """Return a mask of the pixels with PixelPaddingValue or in its range, None if there is none."""
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
    """Invert MONOCHROME1 by the bitwise complement, so that strong signal is bright."""
    if values.dtype.kind == "i":
        return ~values
    return ~values & values.dtype.type((1 << stored) - 1)


def _apply_table(
    values: Any, item: pydicom.Dataset, stored: int, *, is_little: bool
) -> tuple[Any, int]:
    """Return the values by a modality table, and their bits (PS3.3, C.11.1.1)."""
    length, first, bits = map(int, item.LUTDescriptor)
    length = length & 0xFFFF or 2**16
    # The descriptor's first value may be read with or without a sign.
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
