"""One volume on disk: written aside and renamed into place, read back as a memory map.

`lumbar.cache.compressed_slices` reads volumes of the archive profile.
"""

from __future__ import annotations

import json
import secrets
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any, assert_never

import cv2
import google_crc32c
import numpy as np
import zarr
from jaxtyping import Int16, UInt8
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from lumbar.cache.errors import FormatError
from lumbar.cache.format import STORED_DTYPES, VOLUMES, Profile, VolumeAttributes, check_profile

CHUNK = Path("c", "0", "0", "0")
METADATA = "zarr.json"
SCRATCH = ".scratch"
ZSTD_LEVEL = 1
"""After a bit shuffle, level 3 would take twice the time to save 0.3 %."""

GROUP = b'{\n  "attributes": {},\n  "zarr_format": 3,\n  "node_type": "group"\n}'

Stored = UInt8[np.ndarray, "d h w"] | Int16[np.ndarray, "d h w"]


def volume_folder(cache: Path, study_id: str, series_id: str) -> Path:
    """Return the folder of a volume's zarr array."""
    return cache / VOLUMES / study_id / series_id


def write_volume(
    cache: Path, volume_dhw: Stored, attributes: VolumeAttributes, *, profile: Profile = "fast"
) -> None:
    """Store one volume; it exists once its folder has its final name. Same volume, same bytes.

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
    contiguous_dhw = np.ascontiguousarray(volume_dhw, volume_dhw.dtype.newbyteorder("<"))
    chunk, metadata = _encode(contiguous_dhw, attributes, profile)
    scratch = _make_scratch(cache, attributes.study_id, attributes.series_id)
    (scratch / CHUNK).write_bytes(chunk)
    (scratch / METADATA).write_bytes(metadata)
    _put_in_place(scratch, cache, attributes.study_id, attributes.series_id)


def adopt_volume(source: Path, cache: Path, study_id: str, series_id: str) -> None:
    """Link or copy a volume from another cache of the same format.

    Stored files are never changed, so two caches may share them.
    """
    scratch = _make_scratch(cache, study_id, series_id)
    for part in (CHUNK, METADATA):
        _link_or_copy(volume_folder(source, study_id, series_id) / part, scratch / part)
    _put_in_place(scratch, cache, study_id, series_id)


def _make_scratch(cache: Path, study_id: str, series_id: str) -> Path:
    """Make a folder for a volume under a name that no other process or machine uses."""
    # No id contains "+", so two series never share a scratch name.
    scratch = cache / SCRATCH / f"{study_id}+{series_id}+{secrets.token_hex(4)}"
    (scratch / CHUNK).parent.mkdir(parents=True)
    return scratch


def _put_in_place(scratch: Path, cache: Path, study_id: str, series_id: str) -> None:
    """Give a finished volume its final name."""
    final = volume_folder(cache, study_id, series_id)
    old = scratch.with_name(f"{scratch.name}+old")
    ensure_group(cache / VOLUMES)
    ensure_group(final.parent)
    if final.exists():
        # A removal in place, if interrupted, would leave metadata without a chunk.
        final.rename(old)
    scratch.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another device, or a file system without links
        shutil.copyfile(source, target)


def read_attributes(cache: Path, study_id: str, series_id: str) -> VolumeAttributes | None:
    """Return the attributes of a stored volume, or None where there is no such volume."""
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
        # Without profile and size in the attributes, a volume is plain voxels.
        raw = depth * height * width * np.dtype(metadata["data_type"]).itemsize
        metadata["nbytes"] = int(metadata["attributes"].get("nbytes", raw))
        profile = metadata["attributes"].get("profile", "fast")
        metadata["profile"] = check_profile(profile, where=where)
    except FormatError:
        raise
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
        If the file is missing or of another size than in the index.
    """
    require_size(path, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r", shape=shape)


def require_size(path: Path, nbytes: int) -> None:
    """Raise `FormatError` unless a chunk file is there and has its size."""
    try:
        found: int | str = path.stat().st_size
    except FileNotFoundError:
        found = "no file"
    if found != nbytes:
        raise chunk_error(path, got=found, expected=f"{nbytes} bytes")


def chunk_error(path: Path, *, got: object, expected: str) -> FormatError:
    """Return the error of a chunk file that differs from the index."""
    return FormatError(
        what="chunk of a volume",
        where=path,
        got=got,
        expected=expected,
        cure="see `lumbar verify`, then run `lumbar preprocess` again",
    )


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes."""
    return int(google_crc32c.value(bytes(data)))


def _encode(
    volume_dhw: Stored, attributes: VolumeAttributes, profile: Profile
) -> tuple[bytes | memoryview, bytes]:
    """Return the chunk file and the metadata document; zarr compresses and describes."""
    chunk: bytes | memoryview
    match profile:
        case "fast":
            chunk = volume_dhw.data.cast("B")
        case "archive":
            chunk = _compress(volume_dhw)
        case _:
            assert_never(profile)
    stored = {"profile": profile, "nbytes": len(chunk), "crc32c": crc32c(chunk)}
    document = json.loads(_describe(volume_dhw.shape, volume_dhw.dtype.name, profile))
    measured = _measured(volume_dhw, attributes)
    document["attributes"] = attributes.to_json() | stored | measured
    return chunk, json.dumps(document, indent=2, allow_nan=False).encode()


@lru_cache(maxsize=256)
def _describe(shape: tuple[int, ...], dtype: str, profile: Profile) -> bytes:
    """Return zarr's metadata of an array; cached, for many series have the same."""
    documents: dict[str, Buffer] = {}
    _create(documents, shape, np.dtype(dtype), profile)
    return documents[METADATA].to_bytes()


def _compress(volume_dhw: Stored) -> bytes:
    """Return the chunk file of the archive profile."""
    documents: dict[str, Buffer] = {}
    _create(documents, volume_dhw.shape, volume_dhw.dtype, "archive")[:] = volume_dhw
    return documents[CHUNK.as_posix()].to_bytes()


def _create(
    documents: dict[str, Buffer], shape: tuple[int, ...], dtype: np.dtype[Any], profile: Profile
) -> zarr.Array[Any]:
    """Create an array in memory: one chunk, or one shard with a chunk per slice."""
    layout: dict[str, Any] = {"chunks": shape, "compressors": None}
    if profile == "archive":
        # One block per slice: the codec's default is 5 % slower to read and no smaller.
        codec = BloscCodec(
            typesize=dtype.itemsize,
            cname="zstd",
            clevel=ZSTD_LEVEL,
            shuffle="bitshuffle",
            blocksize=shape[1] * shape[2] * dtype.itemsize,
        )
        layout = {"chunks": (1, *shape[1:]), "shards": shape, "compressors": (codec, Crc32cCodec())}
    return zarr.create_array(
        MemoryStore(documents),
        shape=shape,
        dtype=dtype.name,
        filters=None,
        fill_value=0,
        dimension_names=("d", "h", "w"),
        # A volume or a slice of zeros is stored like any other.
        config={"write_empty_chunks": True},
        **layout,
    )


def _measured(volume_dhw: Stored, attributes: VolumeAttributes) -> dict[str, float]:
    """Return mean and standard deviation; the index takes them from here."""
    mean, std = cv2.meanStdDev(volume_dhw.reshape(-1))
    return {
        "mean": float(mean[0, 0]) * attributes.scale + attributes.offset,
        "std": float(std[0, 0]) * attributes.scale,
    }


def ensure_group(folder: Path, *, anew: bool = False) -> None:
    """Make a folder a zarr group; several processes may do so at once."""
    if not anew and (folder / METADATA).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{METADATA}.{secrets.token_hex(4)}"
    scratch.write_bytes(GROUP)
    scratch.rename(folder / METADATA)
