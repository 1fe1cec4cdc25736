"""One volume on disk: written aside and renamed into place, read back as a memory map."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import google_crc32c
import numpy as np
import zarr
from jaxtyping import Int16, UInt8
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from lumbar.cache.errors import FormatError
from lumbar.cache.format import STORED_DTYPES, VOLUMES, VolumeAttributes

CHUNK = Path("c", "0", "0", "0")
METADATA = "zarr.json"
SCRATCH = ".scratch"
_GROUP = b'{\n  "attributes": {},\n  "zarr_format": 3,\n  "node_type": "group"\n}'

Stored = UInt8[np.ndarray, "d h w"] | Int16[np.ndarray, "d h w"]


def volume_folder(cache: Path, study_id: str, series_id: str) -> Path:
    """Return the folder of a volume's zarr array."""
    return cache / VOLUMES / study_id / series_id


def write_volume(cache: Path, volume_dhw: Stored, attributes: VolumeAttributes) -> None:
    """Store one volume; it exists once its folder has its final name.

    The chunk is written first, the metadata last, both in a scratch folder that is renamed. Safe to
    call from several processes for different series.

    Raises
    ------
    FormatError
        If dtype or depth is not what the format allows.
    """
    if volume_dhw.dtype.name not in STORED_DTYPES or volume_dhw.shape[0] != attributes.depth:
        raise FormatError(
            what="volume to store",
            where=attributes.series_id,
            got=f"{volume_dhw.dtype} {volume_dhw.shape}",
            expected=f"{' or '.join(STORED_DTYPES)}, {attributes.depth} slices",
        )
    final = volume_folder(cache, attributes.study_id, attributes.series_id)
    # No id holds a "+", so two series never share a scratch name.
    scratch = cache / SCRATCH / f"{attributes.study_id}+{attributes.series_id}"
    old = scratch.with_name(f"{scratch.name}+old")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    (scratch / CHUNK).parent.mkdir(parents=True)
    chunk = np.ascontiguousarray(volume_dhw, volume_dhw.dtype.newbyteorder("<"))
    (scratch / CHUNK).write_bytes(chunk.data)
    (scratch / METADATA).write_bytes(_metadata(chunk, attributes))
    _ensure_group(cache / VOLUMES)
    _ensure_group(final.parent)
    if final.exists():
        # Removing it in place could be cut short and leave metadata without a chunk.
        final.rename(old)
    scratch.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def read_attributes(cache: Path, study_id: str, series_id: str) -> VolumeAttributes | None:
    """Return what a stored volume says of itself, or None where there is no such volume."""
    try:
        text = (volume_folder(cache, study_id, series_id) / METADATA).read_bytes()
    except FileNotFoundError:
        return None
    return VolumeAttributes.from_json(parse_metadata(text, where=series_id)["attributes"])


def parse_metadata(text: bytes, *, where: object) -> dict[str, Any]:
    """Parse the ``zarr.json`` of a volume; raise `FormatError` where it is not one."""
    try:
        metadata = dict(json.loads(text))
        metadata["attributes"] = dict(metadata["attributes"])
        depth, height, width = map(int, metadata["shape"])
        metadata["shape"] = (depth, height, width)
        _require_dtype(metadata["data_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            what="metadata of a volume",
            where=where,
            got=f"{type(error).__name__}: {error}",
            expected="a Zarr v3 array with lumbar's attributes",
            cure="remove the volume's folder and run `lumbar preprocess` again",
        ) from error
    return metadata


def _require_dtype(name: object) -> None:
    """Raise ValueError for an element type that the format does not have."""
    if name not in STORED_DTYPES:
        message = f"data_type {name!r} is not one of {STORED_DTYPES}"
        raise ValueError(message)


def map_volume(path: Path, *, dtype: str, shape: tuple[int, int, int]) -> Stored:
    """Map a chunk file read-only as a ``(d, h, w)`` array; nothing is read yet.

    Raises
    ------
    FormatError
        If the file is missing or not of the size that the index says.
    """
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    found = path.stat().st_size if path.exists() else "no file"
    if found != expected:
        raise FormatError(
            what="chunk of a volume",
            where=path,
            got=found,
            expected=f"{expected} bytes",
            cure="see `lumbar verify`, then run `lumbar preprocess` again",
        )
    return np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r", shape=shape)


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes."""
    return int(google_crc32c.value(bytes(data)))


def _metadata(chunk_dhw: Stored, attributes: VolumeAttributes) -> bytes:
    """Let zarr write the metadata document, so that it is zarr's and not ours."""
    documents: dict[str, Buffer] = {}
    zarr.create_array(
        MemoryStore(documents),
        shape=chunk_dhw.shape,
        chunks=chunk_dhw.shape,
        dtype=chunk_dhw.dtype.name,
        compressors=None,
        filters=None,
        fill_value=0,
        dimension_names=("d", "h", "w"),
        attributes=attributes.to_json() | _measured(chunk_dhw, attributes),
    )
    return documents[METADATA].to_bytes()


def _measured(chunk_dhw: Stored, attributes: VolumeAttributes) -> dict[str, float | int]:
    """Return checksum, mean and standard deviation, so that the index needs no second look."""
    mean, std = cv2.meanStdDev(chunk_dhw.reshape(-1))
    return {
        "crc32c": crc32c(chunk_dhw.data),
        "mean": float(mean[0, 0]) * attributes.scale + attributes.offset,
        "std": float(std[0, 0]) * attributes.scale,
    }


def _ensure_group(folder: Path) -> None:
    """Make a folder a zarr group; several processes may do so at once."""
    if (folder / METADATA).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{METADATA}.{os.getpid()}"
    scratch.write_bytes(_GROUP)
    scratch.rename(folder / METADATA)
