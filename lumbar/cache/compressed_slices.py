"""Chosen slices of a volume of the archive profile, each read and decompressed alone.

The file is a shard of Zarr's ``sharding_indexed`` codec: a Blosc buffer and its CRC-32C for each
slice, then the index, 16 bytes per slice (offset and length, little endian) and its CRC-32C. Zarr
reads it too, but took twenty times as long for 20 slices of 384 x 384.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numcodecs import blosc

from lumbar.cache.volumes import Stored, chunk_error, crc32c, require_size

INDEX_ENTRY = struct.Struct("<QQ")
CHECKSUM = struct.Struct("<I")
BLOSC_HEADER = struct.Struct("<4xI4xI")
"""Bytes before and after compression, in the first 16 bytes of a Blosc 1 buffer."""


def read_slices(
    path: Path, *, dtype: str, shape: tuple[int, int, int], nbytes: int, slices: Sequence[int]
) -> Stored:
    """Return slices ``(n, h, w)`` of an archive volume; below zero stands for a slice of zeros.

    Reads only the bytes of these slices, keeps nothing open, and releases the GIL while it reads
    and decompresses: safe and useful in several threads.

    Raises
    ------
    FormatError
        If the file is missing, has another size than ``nbytes``, or the index or a chosen slice is
        damaged.
    """
    depth, height, width = shape
    require_size(path, nbytes)
    picked_dhw = np.zeros((len(slices), height, width), np.dtype(dtype).newbyteorder("<"))
    with path.open("rb", buffering=0) as file:
        index = _read_index(file.fileno(), path, depth, nbytes)
        for place, d in enumerate(slices):
            if d >= 0:
                offset, length = index[d]
                frame = _unsealed(os.pread(file.fileno(), length, offset), path, f"slice {d}")
                _decompress(frame, picked_dhw[place], path, d)
    return picked_dhw


def _read_index(descriptor: int, path: Path, depth: int, nbytes: int) -> list[tuple[int, int]]:
    """Return offset and length of each slice; raise `FormatError` for one outside the file."""
    size = depth * INDEX_ENTRY.size + CHECKSUM.size
    start = nbytes - size
    table = _unsealed(os.pread(descriptor, size, max(start, 0)), path, "the index")
    index = list(INDEX_ENTRY.iter_unpack(table))
    for d, (offset, length) in enumerate(index):
        if offset + length > start:
            raise chunk_error(
                path, got=f"slice {d} at {offset}, {length} bytes", expected=f"it before {start}"
            )
    return index


def _unsealed(data: bytes, path: Path, name: str) -> bytes:
    """Return bytes without the CRC-32C at their end; raise `FormatError` where it differs."""
    payload, checksum = data[: -CHECKSUM.size], data[-CHECKSUM.size :]
    if len(checksum) < CHECKSUM.size:
        raise chunk_error(path, got=f"{len(data)} bytes for {name}", expected="a checksum at least")
    (expected,) = CHECKSUM.unpack(checksum)
    found = crc32c(payload)
    if found != expected:
        raise chunk_error(path, got=f"crc32c {found} of {name}", expected=f"crc32c {expected}")
    return payload


def _decompress(frame: bytes, slice_hw: np.ndarray, path: Path, d: int) -> None:
    """Decompress one slice into its place."""
    # Blosc trusts the sizes in the header and could read or write beyond its buffers.
    sizes = BLOSC_HEADER.unpack_from(frame) if len(frame) >= BLOSC_HEADER.size else None
    wanted = slice_hw.nbytes, len(frame)
    if sizes != wanted:
        raise chunk_error(
            path, got=f"slice {d} of sizes {sizes}", expected=f"{wanted}, unpacked and packed"
        )
    try:
        blosc.decompress(frame, slice_hw)
    except (RuntimeError, ValueError) as error:
        raise chunk_error(path, got=f"slice {d}: {error}", expected="a Blosc buffer") from error
