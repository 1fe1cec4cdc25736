"""``series.parquet``: one row per cached series, made from the volumes' metadata alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from lumbar.cache.errors import FormatError
from lumbar.cache.format import SERIES_SCHEMA, VOLUMES, VolumeAttributes
from lumbar.cache.volumes import CHUNK, METADATA, crc32c, parse_metadata, volume_folder


def build_index(cache: Path, *, known: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the series table of the volumes that exist, ordered by study and series.

    Rows of a ``known`` table are kept where the volume's metadata has the same checksum.
    """
    columns = SERIES_SCHEMA.names()
    old = {} if known is None else {row[:2]: row for row in known.select(columns).rows()}
    checksum = columns.index("metadata_crc32c")
    rows: list[tuple[Any, ...]] = []
    for key in find_volumes(cache):
        text = (volume_folder(cache, *key) / METADATA).read_bytes()
        row = old.get(key)
        same = row is not None and row[checksum] == crc32c(text)
        rows.append(row if row and same else tuple(_row(cache, *key, text).values()))
    return pl.DataFrame(rows, schema=SERIES_SCHEMA, orient="row")


def find_volumes(cache: Path) -> Iterator[tuple[str, str]]:
    """Yield the study and series ids of the volumes that exist, in order."""
    for study_id in _folders(cache / VOLUMES):
        for series_id in _folders(cache / VOLUMES / study_id):
            if volume_folder(cache, study_id, series_id).joinpath(METADATA).exists():
                yield study_id, series_id


def _folders(path: Path) -> list[str]:
    """Return the names of the folders in a folder, in order; none where there is no such folder."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def series_row(cache: Path, study_id: str, series_id: str) -> dict[str, Any]:
    """Return the row of one volume; raise `FormatError` where its metadata is damaged."""
    text = (volume_folder(cache, study_id, series_id) / METADATA).read_bytes()
    return _row(cache, study_id, series_id, text)


def _row(cache: Path, study_id: str, series_id: str, text: bytes) -> dict[str, Any]:
    """Return the row of a volume from the text of its metadata."""
    folder = volume_folder(cache, study_id, series_id)
    metadata = parse_metadata(text, where=folder / METADATA)
    attributes = VolumeAttributes.from_json(metadata["attributes"])
    depth, height, width = metadata["shape"]
    spacing_d_mm, spacing_h_mm, spacing_w_mm = attributes.spacing_mm
    crc, mean, std = _measured(metadata["attributes"], where=folder / METADATA)
    return {
        "study_id": study_id,
        "series_id": series_id,
        "series_type": str(attributes.series_type),
        "path": (folder / CHUNK).relative_to(cache).as_posix(),
        "dtype": metadata["data_type"],
        "depth": depth,
        "height": height,
        "width": width,
        "nbytes": metadata["nbytes"],
        "crc32c": crc,
        "metadata_crc32c": crc32c(text),
        "affine": attributes.affine.ravel().tolist(),
        "n_stacks": len(attributes.stacks),
        "spacing_d_mm": spacing_d_mm,
        "spacing_h_mm": spacing_h_mm,
        "spacing_w_mm": spacing_w_mm,
        "scale": attributes.scale,
        "offset": attributes.offset,
        "window_low": attributes.window.low,
        "window_high": attributes.window.high,
        "mean": mean,
        "std": std,
        "source_hash": attributes.source_hash,
        "config_hash": attributes.config_hash,
        "manufacturer": attributes.manufacturer,
        "transfer_syntax": attributes.transfer_syntax,
        "n_files": attributes.n_files,
        "flags": list(attributes.flags),
    }


def _measured(attributes: dict[str, Any], *, where: Path) -> tuple[int, float, float]:
    """Return CRC-32C, mean and deviation of the voxels, measured when they were written."""
    try:
        return int(attributes["crc32c"]), float(attributes["mean"]), float(attributes["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            what="measurements of a volume",
            where=where,
            got=f"{type(error).__name__}: {error}",
            expected="crc32c, mean and std",
            cure="remove the volume's folder and run `lumbar preprocess` again",
        ) from error
