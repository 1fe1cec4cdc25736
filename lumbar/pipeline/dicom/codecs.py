"""Compressed frames become arrays: fast decoders come first, pydicom's decoders after them.

imagecodecs releases the interpreter's lock and takes a fraction of the time of the decoders that
pydicom tries first (docs/pixels.md has the figures). A frame that it refuses may still be decoded
by pydicom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
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
from lumbar.pipeline.dicom.elements import bits_stored, dtype_of, frame_count, value_of
from lumbar.pipeline.dicom.gpu_decode import GPU_PLUGIN, GPU_SYNTAXES
from lumbar.pipeline.reject import Reason, RejectedError, describe

CPU_PLUGIN = "pylibjpeg"
"""pydicom asks its own RLE decoder first, which takes twice as long as pylibjpeg's."""

_TRAILING_BYTES = 64
"""The end marker is searched in these last bytes: some writers pad a fragment by several bytes."""

_FAST = {
    **dict.fromkeys(JPEG, imagecodecs.jpeg8_decode),
    **dict.fromkeys(JPEG_LS, imagecodecs.jpegls_decode),
    # HTJ2K too: imagecodecs' own HTJ2K decoder is faster, but returns what it could not decode.
    **dict.fromkeys(JPEG_2000, imagecodecs.jpeg2k_decode),
}

_LAST: dict[str, tuple[Callable[[bytes], Any], ...]] = {
    JPEG_FAMILY: (
        imagecodecs.jpeg8_decode,
        imagecodecs.jpegls_decode,
        imagecodecs.jpegsof3_decode,
        imagecodecs.ljpeg_decode,
    ),
    JPEG_2000_FAMILY: (imagecodecs.jpeg2k_decode, imagecodecs.htj2k_decode),
}
"""The decoders, by the kind of a frame's bytes, for frames that all others refused."""


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
        If pydicom has no decoder of it or no plugin for it is installed.
    """
    try:
        decoder = get_decoder(pydicom.uid.UID(syntax))
    except NotImplementedError as error:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, syntax or "none named") from error
    if not decoder.is_available:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, decoder.UID.name)
    return decoder


def decompress(dataset: pydicom.Dataset, index: int, syntax: str, *, on_gpu: bool) -> Any:
    """Return a frame's values, ``(rows, columns)``, with the bits above BitsStored dropped.

    ``on_gpu`` asks the GPU first for frames that it decodes without rounding; its plugin has to be
    registered.

    Raises
    ------
    RejectedError
        If the frame is missing, has another size than the header, or no decoder reads it.
    """
    frame, stream = _read_frame(dataset, index, syntax, find_decoder(syntax).UID.name)
    values = None
    if stream is None or stream.is_reversible:
        if on_gpu and syntax in GPU_SYNTAXES:
            values = decode_on_gpu(dataset, index, syntax)
            values = _fit_header(values, dataset, syntax, stream)
        if values is None:
            values = _decode_fast(frame, dataset, syntax)
            values = _fit_header(values, dataset, syntax, stream)
    return _decode_slowly(frame, dataset, index, syntax, stream) if values is None else values


def decompress_by_contents(dataset: pydicom.Dataset, index: int, syntax: str) -> Any:
    """Return a frame's values by the kind of its bytes, for an unknown transfer syntax.

    Retired and new forms of JPEG are decoded by the decoders of related forms.

    Raises
    ------
    RejectedError
        As `decompress`; `UNSUPPORTED_TRANSFER_SYNTAX` for bytes of an unknown kind.
    """
    name = pydicom.uid.UID(syntax).name
    if not dataset["PixelData"].is_undefined_length:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, name or "none named")
    frame, stream = _read_frame(dataset, index, None, name)
    values = _decode_last(frame, dataset, syntax, stream)
    if values is None:
        raise RejectedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, name)
    return values


def decode_by_each(dataset: pydicom.Dataset, index: int, syntax: str) -> dict[str, Any]:
    """Return a frame's values by each package that `decompress` asks, None if it refuses.

    The values of ``pydicom`` are those of its plugin that is in use.
    """
    frame = _find_frame(dataset, index)
    stream = read_codestream(frame, syntax)
    found: dict[str, Any] = {}
    if stream is None or stream.is_reversible:
        values = _decode_fast(frame, dataset, syntax)
        found["imagecodecs"] = _fit_header(values, dataset, syntax, stream)
    try:
        found["pydicom"] = _decode_by_pydicom(dataset, index, syntax)
    except RejectedError:
        found["pydicom"] = None
    return found


def _read_frame(
    dataset: pydicom.Dataset, index: int, syntax: str | None, name: str
) -> tuple[bytes, Codestream | None]:
    """Return a frame up to its end marker, and its codestream's header, checked.

    Without ``syntax`` the kind of the bytes decides; ``name`` is for the messages.
    """
    try:
        frame = _find_frame(dataset, index)
        family = find_family(frame) if syntax is None else syntax
        stream = read_codestream(frame, family) if family else None
    except Exception as error:
        # Encapsulation and headers of foreign bytes raise anything; the cause is in the detail.
        raise RejectedError(Reason.UNDECODABLE, f"{name}: {describe(error)}") from error
    if stream is not None:
        _check_size(stream, dataset, name)
        frame = _cut_at_end(frame, name)
    return frame, stream


def _decode_slowly(
    frame: bytes, dataset: pydicom.Dataset, index: int, syntax: str, stream: Codestream | None
) -> Any:
    """Decode a frame by pydicom's decoders or, if they refuse it, by any other of imagecodecs."""
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
    """Return the first result of any decoder that fits the header, None if there is none."""
    bits = bits_stored(dataset)
    family = find_family(frame) or syntax
    for decode in _last_decoders(family, dataset):
        try:
            values = decode(frame)
        except Exception:
            continue  # the caller raises with the cause
        if values.dtype.kind != "u" or int(values.max(initial=0)) >> bits:
            continue  # the highest bits would be lost
        found = _fit_header(values, dataset, syntax, stream)
        if found is not None:
            return found
    return None


def _last_decoders(family: str, dataset: pydicom.Dataset) -> Iterator[Callable[[bytes], Any]]:
    yield from _LAST.get(family, ())
    if family == JPEG_XL_FAMILY:
        for dtype in ("u2", "u1"):  # only an output array bounds the size of such a frame
            room = np.empty((dataset.Rows, dataset.Columns), dtype)
            yield partial(imagecodecs.jpegxl_decode, out=room)


def _find_frame(dataset: pydicom.Dataset, index: int) -> bytes:
    """Return the bytes of one frame, its fragments joined, by any kind of offset table."""
    table = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        table = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    return get_frame(
        dataset.PixelData, index, number_of_frames=frame_count(dataset), extended_offsets=table
    )


def _check_size(stream: Codestream, dataset: pydicom.Dataset, name: str) -> None:
    """Refuse a frame of another size than the header's, before a decoder allocates it."""
    found = stream.rows, stream.columns, stream.components
    if found != (dataset.Rows, dataset.Columns, 1):
        raise RejectedError(
            Reason.UNDECODABLE,
            f"{name}: the frame has {found[0]} x {found[1]} pixels of {found[2]} components, "
            f"the header says {dataset.Rows} x {dataset.Columns} of 1",
        )


def _cut_at_end(frame: bytes, name: str) -> bytes:
    """Return a frame up to its end marker; refuse a frame without one.

    Decoders fill up a truncated picture without an error, or search for its end for seconds.
    """
    end = frame.rfind(END_MARKER, max(0, len(frame) - _TRAILING_BYTES))
    if end < 0:
        raise RejectedError(Reason.TRUNCATED, f"{name}: the frame has no end marker")
    return frame[: end + len(END_MARKER)]


def _decode_fast(frame: bytes, dataset: pydicom.Dataset, syntax: str) -> Any:
    """Return a frame decoded by imagecodecs, or None if it refuses."""
    try:
        return _decode_rle(frame, dataset) if syntax == RLE else _FAST[syntax](frame)
    except Exception:
        return None  # pydicom's decoders are asked next, and raise with the cause


def _fit_header(
    values: Any, dataset: pydicom.Dataset, syntax: str, stream: Codestream | None
) -> Any:
    """Return decoded values in the header's type, unused bits dropped; None if they do not fit.

    A decoder follows the codestream, which may have fewer bits than the header, or another sign.
    """
    dtype = dtype_of(dataset)
    if values is None or values.shape != (dataset.Rows, dataset.Columns):
        return None
    if values.dtype.itemsize > dtype.itemsize:
        return None
    if values.dtype.itemsize < dtype.itemsize:
        values = values.astype(f"{values.dtype.kind}{dtype.itemsize}")
    return drop_bits(values.view(dtype), _unused_bits(dataset, syntax, stream))


def _decode_rle(frame: bytes, dataset: pydicom.Dataset) -> Any:
    """Return the values of an RLE frame, or None if it holds too few of them."""
    dtype = dtype_of(dataset)
    room = np.empty(dataset.Rows * dataset.Columns * dtype.itemsize, np.uint8)
    decoded = imagecodecs.dicomrle_decode(frame, dtype, out=room.data)
    if len(decoded) != len(room):
        return None
    return room.view(dtype).reshape(dataset.Rows, dataset.Columns)


def _unused_bits(dataset: pydicom.Dataset, syntax: str, stream: Codestream | None) -> int:
    """Return how many high bits are no part of the value.

    JPEG-LS has no sign, and that of JPEG 2000 may differ from the header's: then the sign is the
    highest bit that both header and codestream have.
    """
    stored = bits_stored(dataset)
    is_signed = bool(value_of(dataset, "PixelRepresentation"))
    if stream is not None and syntax not in JPEG and stream.is_signed != is_signed:
        stored = min(stored, stream.precision)
    return int(dataset.BitsAllocated) - stored


def drop_bits(values: Any, count: int) -> Any:
    """Drop the highest bits of values; the highest remaining bit of signed values is the sign."""
    if count <= 0:
        return values
    if values.dtype.kind == "u":
        return values & values.dtype.type((1 << (8 * values.dtype.itemsize - count)) - 1)
    return (values << count) >> count


def decode_on_gpu(dataset: pydicom.Dataset, index: int, syntax: str) -> Any:
    """Return the values by nvImageCodec, or None if it refuses the frame."""
    try:
        values, _ = find_decoder(syntax).as_array(
            dataset, index=index, raw=True, decoding_plugin=GPU_PLUGIN
        )
    except Exception:
        return None  # the CPU's decoders are asked next, and raise with the cause
    return values


def _decode_by_pydicom(dataset: pydicom.Dataset, index: int, syntax: str) -> Any:
    """Return the values by pydicom's decoders."""
    decoder = find_decoder(syntax)
    plugin = CPU_PLUGIN if CPU_PLUGIN in decoder.available_plugins else ""
    try:
        values, _ = decoder.as_array(dataset, index=index, raw=True, decoding_plugin=plugin)
    except Exception as error:
        # Decoders of foreign bytes raise anything; the cause is kept in the detail.
        raise RejectedError(Reason.UNDECODABLE, f"{decoder.UID.name}: {describe(error)}") from error
    return values
