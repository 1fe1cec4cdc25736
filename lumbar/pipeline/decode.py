"""Pixels of one slice: decoded, MONOCHROME1 inverted, padding found.

pydicom drops the bits above BitsStored and carries the sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Bool, Integer
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_modality_lut

from lumbar.pipeline.parse import transfer_syntax
from lumbar.pipeline.reject import Reason, RejectedError, describe

FAST_PLUGIN = "pylibjpeg"
"""pydicom asks its own RLE decoder first, which takes twice as long as pylibjpeg's."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Stored values as 8 or 16 bit integers, and which of them are padding (None: none)."""

    values: Integer[np.ndarray, "rows columns"]
    padding: Bool[np.ndarray, "rows columns"] | None


def decode(dataset: pydicom.Dataset, frame: int) -> Picture:
    """Decode one frame, counted from zero.

    Raises
    ------
    RejectedError
        If the pixels are cut short, no decoder knows their transfer syntax, or it refuses them.
    """
    syntax = transfer_syntax(dataset)
    decoder = _decoder(syntax)
    if not decoder.UID.is_encapsulated:
        _check_length(dataset)
    plugin = FAST_PLUGIN if FAST_PLUGIN in decoder.available_plugins else ""
    try:
        values, _ = decoder.as_array(dataset, index=frame, raw=True, decoding_plugin=plugin)
    except Exception as error:
        # Decoders of foreign bytes raise whatever they like; the cause is kept in the detail.
        raise RejectedError(Reason.UNDECODABLE, f"{decoder.UID.name}: {describe(error)}") from error
    if values.ndim != 2:
        raise RejectedError(Reason.UNDECODABLE, f"the decoder returned shape {values.shape}")
    return _finish(values, dataset)


@cache
def _decoder(syntax: str) -> Decoder:
    try:
        decoder = get_decoder(pydicom.uid.UID(syntax))
    except NotImplementedError as error:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, syntax or "none named") from error
    if not decoder.is_available:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, decoder.UID.name)
    return decoder


def _check_length(dataset: pydicom.Dataset) -> None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    expected = dataset.Rows * dataset.Columns * frames * dataset.BitsAllocated // 8
    if len(dataset.PixelData) < expected:
        raise RejectedError(Reason.TRUNCATED, f"{len(dataset.PixelData)} of {expected} bytes")


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
