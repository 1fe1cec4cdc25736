"""Compressed frames become numbers: the fast decoders first, pydicom's behind them.

imagecodecs releases the lock of the interpreter and takes a fraction of the time of the decoders
that pydicom tries first (docs/pixels.md has the figures). What it refuses pydicom may still read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import Decoder, get_decoder

from lumbar.pipeline.dicom.codestream import (
    END_MARKER,
    JPEG,
    JPEG_2000,
    JPEG_2000_FAMILY,
    JPEG_FAMILY,
    JPEG_LS,
    JPEG_XL_FAMILY,
    RLE,
    Codestream,
    find_family,
    read_codestream,
)
from lumbar.pipeline.dicom.elements import value_of
from lumbar.pipeline.dicom.gpu_decode import GPU_PLUGIN, GPU_SYNTAXES
from lumbar.pipeline.reject import Reason, RejectedError, describe

CPU_PLUGIN = "pylibjpeg"
"""pydicom asks its own RLE decoder first, which takes twice as long as pylibjpeg's."""

_TRAILING_BYTES = 64
"""Where the end marker is looked for: some writers fill up a fragment with more than one byte."""

_FAST = {
    **dict.fromkeys(JPEG, imagecodecs.jpeg8_decode),
    **dict.fromkeys(JPEG_LS, imagecodecs.jpegls_decode),
    # HTJ2K too: imagecodecs' own decoder of it is faster and returns what it could not decode.
    **dict.fromkeys(JPEG_2000, imagecodecs.jpeg2k_decode),
}


def _decode_jpeg_xl(frame: bytes, rows: int, columns: int) -> Any:
    """Decode into room of the header's size: this frame says its own only to its decoder."""
    for dtype in ("u2", "u1"):
        try:
            return imagecodecs.jpegxl_decode(frame, out=np.empty((rows, columns), dtype))
        except ValueError:
            continue
    return None


def _sized_by_stream(decode: Callable[[bytes], Any]) -> Callable[[bytes, int, int], Any]:
    """Return a decoder of frames whose size was compared with the header's before."""
    return lambda frame, rows, columns: decode(frame)


_LAST: dict[str, tuple[Callable[[bytes, int, int], Any], ...]] = {
    JPEG_FAMILY: tuple(
        map(
            _sized_by_stream,
            (
                imagecodecs.jpeg8_decode,
                imagecodecs.jpegls_decode,
                imagecodecs.jpegsof3_decode,
                imagecodecs.ljpeg_decode,
            ),
        )
    ),
    JPEG_2000_FAMILY: (
        _sized_by_stream(imagecodecs.jpeg2k_decode),
        _sized_by_stream(imagecodecs.htj2k_decode),
    ),
    JPEG_XL_FAMILY: (_decode_jpeg_xl,),
}
"""Who may read a frame that nobody else read, by what its bytes are."""


@cache
def has_decoder(syntax: str) -> bool:
    """Tell whether a decoder of a transfer syntax is installed."""
    try:
        find_decoder(syntax)
    except RejectedError:
        return False
    return True


@cache
def find_decoder(syntax: str) -> Decoder:
    """Return pydicom's decoder of a transfer syntax.

    Raises
    ------
    RejectedError
        If nobody knows it or no plugin for it is installed.
    """
    try:
        decoder = get_decoder(pydicom.uid.UID(syntax))
    except NotImplementedError as error:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, syntax or "none named") from error
    if not decoder.is_available:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, decoder.UID.name)
    return decoder


def decompress(dataset: pydicom.Dataset, index: int, syntax: str, *, on_gpu: bool) -> Any:
    """Return a frame's values, ``(rows, columns)``, bits above BitsStored dropped.

    ``on_gpu`` asks the graphics card first, for what it decodes without rounding; its plugin has to
    be registered.

    Raises
    ------
    RejectedError
        If the frame is missing, is not of the size that the header says, or no decoder reads it.
    """
    name = find_decoder(syntax).UID.name
    try:
        frame = _find_frame(dataset, index)
        stream = read_codestream(frame, syntax)
    except Exception as error:
        # Encapsulation and headers of foreign bytes fail in any way; the cause is in the detail.
        raise RejectedError(Reason.UNDECODABLE, f"{name}: {describe(error)}") from error
    if stream is not None:
        _check_size(stream, dataset, name)
        frame = _cut_at_end(frame, name)
    values = None
    if stream is None or stream.is_reversible:
        if on_gpu and syntax in GPU_SYNTAXES:
            values = decode_on_gpu(dataset, index, syntax)
            values = _as_the_header_says(values, dataset, syntax, stream)
        if values is None:
            values = _decode_fast(frame, dataset, syntax)
            values = _as_the_header_says(values, dataset, syntax, stream)
    return _decode_slowly(frame, dataset, index, syntax, stream) if values is None else values


def decompress_by_contents(dataset: pydicom.Dataset, index: int, syntax: str) -> Any:
    """Return a frame's values where nobody knows its transfer syntax, by what its bytes are.

    Retired forms of JPEG and new ones are decoded by those who decode their relatives.

    Raises
    ------
    RejectedError
        As `decompress`; `UNSUPPORTED_TRANSFER_SYNTAX` where the bytes are nothing known.
    """
    uid = pydicom.uid.UID(syntax)
    if not dataset["PixelData"].is_undefined_length:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, uid.name or "none named")
    try:
        frame = _find_frame(dataset, index)
        family = find_family(frame)
        stream = read_codestream(frame, family) if family else None
    except Exception as error:
        # Encapsulation and headers of foreign bytes fail in any way; the cause is in the detail.
        raise RejectedError(Reason.UNDECODABLE, f"{uid.name}: {describe(error)}") from error
    if stream is not None:
        _check_size(stream, dataset, uid.name)
        frame = _cut_at_end(frame, uid.name)
    values = _decode_last(frame, dataset, syntax, stream)
    if values is None:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, uid.name)
    return values


def _decode_slowly(
    frame: bytes, dataset: pydicom.Dataset, index: int, syntax: str, stream: Codestream | None
) -> Any:
    """Return what pydicom's decoders make of a frame, or at last any other of imagecodecs'."""
    try:
        return _decode_by_pydicom(dataset, index, syntax)
    except RejectedError:
        values = _decode_last(frame, dataset, syntax, stream)
        if values is None:
            raise
        return values


def _decode_last(
    frame: bytes, dataset: pydicom.Dataset, syntax: str, stream: Codestream | None
) -> Any:
    """Return what any decoder makes of a frame that is as the header says; None where none does."""
    bits = int(value_of(dataset, "BitsStored", dataset.BitsAllocated))
    family = find_family(frame) or syntax
    for decode in _LAST.get(family, ()):
        try:
            values = decode(frame, dataset.Rows, dataset.Columns)
        except Exception:
            continue  # who asked for it names what is wrong
        if values is None or values.dtype.kind != "u" or int(values.max(initial=0)) >> bits:
            continue  # the highest bits would be lost
        found = _as_the_header_says(values, dataset, syntax, stream)
        if found is not None:
            return found
    return None


def decode_by_each(dataset: pydicom.Dataset, index: int, syntax: str) -> dict[str, Any]:
    """Return a frame's values by each package that `decompress` asks, None where one refuses it.

    pydicom stands for the plugin of its that is asked.
    """
    frame = _find_frame(dataset, index)
    stream = read_codestream(frame, syntax)
    found: dict[str, Any] = {}
    if stream is None or stream.is_reversible:
        values = _decode_fast(frame, dataset, syntax)
        found["imagecodecs"] = _as_the_header_says(values, dataset, syntax, stream)
    try:
        found["pydicom"] = _decode_by_pydicom(dataset, index, syntax)
    except RejectedError:
        found["pydicom"] = None
    return found


def _find_frame(dataset: pydicom.Dataset, index: int) -> bytes:
    """Return the bytes of one frame, its fragments joined, by whatever table says where it lies."""
    table = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        table = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    return get_frame(
        dataset.PixelData,
        index,
        number_of_frames=int(value_of(dataset, "NumberOfFrames") or 1),
        extended_offsets=table,
    )


def _check_size(stream: Codestream, dataset: pydicom.Dataset, name: str) -> None:
    """Refuse a frame of another size than the header's, before a decoder makes room for it."""
    found = stream.rows, stream.columns, stream.components
    if found != (dataset.Rows, dataset.Columns, 1):
        raise RejectedError(
            Reason.UNDECODABLE,
            f"{name}: the frame has {found[0]} x {found[1]} pixels of {found[2]} components, "
            f"the header says {dataset.Rows} x {dataset.Columns} of 1",
        )


def _cut_at_end(frame: bytes, name: str) -> bytes:
    """Return a frame up to its end marker; refuse one that has none.

    Decoders fill up a picture that is cut short and say nothing, or look for its end for seconds.
    """
    end = frame.rfind(END_MARKER, max(0, len(frame) - _TRAILING_BYTES))
    if end < 0:
        raise RejectedError(Reason.TRUNCATED, f"{name}: the frame has no end marker")
    return frame[: end + len(END_MARKER)]


def _decode_fast(frame: bytes, dataset: pydicom.Dataset, syntax: str) -> Any:
    """Return what imagecodecs makes of a frame, or None where it does not take it."""
    try:
        return _decode_rle(frame, dataset) if syntax == RLE else _FAST[syntax](frame)
    except Exception:
        return None  # pydicom's decoders have the last word, and name what is wrong


def _as_the_header_says(
    values: Any, dataset: pydicom.Dataset, syntax: str, stream: Codestream | None
) -> Any:
    """Return decoded values in the header's type, unused bits dropped; None where they do not fit.

    A decoder goes by the codestream, which may have fewer bits than the header, or another sign.
    """
    dtype = _dtype_of(dataset)
    if values is None or values.shape != (dataset.Rows, dataset.Columns):
        return None
    if values.dtype.itemsize > dtype.itemsize:
        return None
    if values.dtype.itemsize < dtype.itemsize:
        values = values.astype(f"{values.dtype.kind}{dtype.itemsize}")
    return drop_bits(values.view(dtype), _unused_bits(dataset, syntax, stream))


def _dtype_of(dataset: pydicom.Dataset) -> Any:
    kind = "i" if value_of(dataset, "PixelRepresentation") else "u"
    return np.dtype(f"{kind}{dataset.BitsAllocated // 8}")


def _decode_rle(frame: bytes, dataset: pydicom.Dataset) -> Any:
    """Return the values of an RLE frame, or None where it holds too few of them."""
    dtype = _dtype_of(dataset)
    room = np.empty(dataset.Rows * dataset.Columns * dtype.itemsize, np.uint8)
    decoded = imagecodecs.dicomrle_decode(frame, dtype, out=room.data)
    if len(decoded) != len(room):
        return None
    return room.view(dtype).reshape(dataset.Rows, dataset.Columns)


def _unused_bits(dataset: pydicom.Dataset, syntax: str, stream: Codestream | None) -> int:
    """Return how many high bits are no part of the value.

    JPEG-LS knows no sign, JPEG 2000 may have another one than the header: then the sign is the
    highest bit that both header and codestream have.
    """
    stored = int(value_of(dataset, "BitsStored", dataset.BitsAllocated))
    is_signed = bool(value_of(dataset, "PixelRepresentation"))
    if stream is not None and syntax not in JPEG and stream.is_signed != is_signed:
        stored = min(stored, stream.precision)
    return int(dataset.BitsAllocated) - stored


def drop_bits(values: Any, count: int) -> Any:
    """Drop the highest bits of values; the sign, where there is one, is the highest that stays."""
    if count <= 0:
        return values
    if values.dtype.kind == "u":
        return values & values.dtype.type((1 << (8 * values.dtype.itemsize - count)) - 1)
    return (values << count) >> count


def decode_on_gpu(dataset: pydicom.Dataset, index: int, syntax: str) -> Any:
    """Return the values by nvImageCodec, or None where it does not take the frame."""
    try:
        values, _ = find_decoder(syntax).as_array(
            dataset, index=index, raw=True, decoding_plugin=GPU_PLUGIN
        )
    except Exception:
        return None  # the CPU's decoders have the last word, and name what is wrong
    return values


def _decode_by_pydicom(dataset: pydicom.Dataset, index: int, syntax: str) -> Any:
    """Return the values by pydicom's decoders."""
    decoder = find_decoder(syntax)
    plugin = CPU_PLUGIN if CPU_PLUGIN in decoder.available_plugins else ""
    try:
        values, _ = decoder.as_array(dataset, index=index, raw=True, decoding_plugin=plugin)
    except Exception as error:
        # Decoders of foreign bytes raise whatever they like; the cause is kept in the detail.
        raise RejectedError(Reason.UNDECODABLE, f"{decoder.UID.name}: {describe(error)}") from error
    return values
