"""Integrity of a finished cache: every chunk, every metadata document, every table row.

Nothing is changed. Tables whose checksum is wrong are not read; instead of the series table the
metadata of the volumes is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lumbar.cache.errors import FormatError, MissingError
from lumbar.cache.format import (
    CACHE_FILE,
    COORDINATES_TABLE,
    HALF_VOXEL,
    LABELS_TABLE,
    SERIES_TABLE,
    TABLE_SCHEMAS,
    VOLUMES,
    Profile,
    check_profile,
)
from lumbar.cache.index import find_volumes, series_row
from lumbar.cache.labels import label_arrays
from lumbar.cache.names import CELLS
from lumbar.cache.patients import read_hashes
from lumbar.cache.source_records import read_sources
from lumbar.cache.tables import (
    PATIENTS_FILE,
    SOURCES_FILE,
    config_hash,
    is_as_written,
    is_scratch,
    read_cache_file,
    read_table,
)
from lumbar.cache.volumes import GROUP, METADATA, SCRATCH, crc32c, parse_metadata, volume_folder

PREPROCESS_AGAIN = "run `lumbar preprocess` again with the same arguments"
REMOVE_VOLUME = f"remove the volume's folder and {PREPROCESS_AGAIN}"
REMOVE_FILE = "remove the file: the next run reads every source file once"

DAMAGED_DESCRIPTION = "the description of the cache is damaged"
DAMAGED_GROUP = "a Zarr group is damaged"


@dataclass(frozen=True, slots=True)
class Checked:
    """A table or a volume was read and compared; each problem is a separate event."""

    where: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something is wrong: what, where (a file, or study and series), the detail, the cure."""

    what: str
    where: str
    detail: str
    cure: str

    @property
    def volume(self) -> tuple[str, str] | None:
        """The volume to convert again, if that is the cure."""
        if self.cure != REMOVE_VOLUME:
            return None
        study_id, _, series_id = self.where.partition("/")
        return study_id, series_id


Finding = Checked | Problem


def verify(root: Path) -> Iterator[Finding]:
    """Compare everything in a cache with its checksums and with each other.

    Yields one `Checked` per table and per row of ``series.parquet``, and a `Problem` for
    everything that is wrong.

    Raises
    ------
    MissingError, InputError, FormatError
        If the folder is absent, is no cache, or is of a format that this version does not read.
    """
    description = read_cache_file(root)
    as_written = is_as_written(root)
    where = str(root / CACHE_FILE)
    if not as_written:
        detail = "its bytes are not those that were written"
        yield Problem(DAMAGED_DESCRIPTION, where, detail, PREPROCESS_AGAIN)
    elif not description["counts"]:
        detail = "no counts: its preprocessing was stopped or is still running"
        yield Problem("the cache is not finished", where, detail, PREPROCESS_AGAIN)
    profile: Profile | None = None
    checksums: dict[str, int] | None = None
    if as_written:  # otherwise nothing in it can be compared
        yield from _check_configuration(root, description)
        named = description["config"].get("profile", "fast")
        profile = check_profile(named, where=root / CACHE_FILE)
        checksums = description["tables_crc32c"]
    yield from _check_records(root)
    tables: dict[str, pl.DataFrame] = {}
    for name in TABLE_SCHEMAS:
        yield from _check_table(root, name, checksums, tables)
    yield from _find_leftovers(root)
    stored = list(find_volumes(root))
    yield from _check_groups(root, stored)
    if SERIES_TABLE in tables:
        rows = list(tables[SERIES_TABLE].iter_rows(named=True))
        yield from _compare_ids(rows, stored)
    else:
        rows = []
        for study_id, series_id in stored:
            yield from _row_from_metadata(root, study_id, series_id, rows)
    for row in rows:
        yield from _check_volume(root, row, profile)
    if LABELS_TABLE in tables:
        yield from _check_labels(tables[LABELS_TABLE])
    if COORDINATES_TABLE in tables:
        yield from _check_coordinates(tables[COORDINATES_TABLE], rows)


def _check_configuration(root: Path, description: dict[str, Any]) -> Iterator[Finding]:
    """Compare the configuration in ``cache.json`` with its hash."""
    found = config_hash(description["config"])
    if found != description["config_hash"]:
        yield Problem(
            "the configuration is not the one that was hashed",
            str(root / CACHE_FILE),
            f"hash {found}, written as {description['config_hash']}",
            f"{PREPROCESS_AGAIN}, with --overwrite",
        )


def _check_table(
    root: Path, name: str, checksums: dict[str, int] | None, tables: dict[str, pl.DataFrame]
) -> Iterator[Finding]:
    """Compare one table with its checksum and schema; add it to ``tables`` if both are right."""
    path = root / name
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        yield Problem("a table is missing", str(path), "no such file", PREPROCESS_AGAIN)
        return
    if checksums is not None and crc32c(data) != checksums.get(name):
        detail = f"crc32c {crc32c(data)}, {CACHE_FILE} says {checksums.get(name)}"
        yield Problem("a table is damaged", str(path), detail, PREPROCESS_AGAIN)
        return
    try:
        tables[name] = read_table(root, name)
    except (FormatError, MissingError) as error:
        yield Problem("a table is damaged", str(path), str(error), PREPROCESS_AGAIN)
        return
    yield Checked(name, len(data))


def _check_records(root: Path) -> Iterator[Finding]:
    """Check the records of the sources and the patients, which may be absent."""
    records = ((read_sources, SOURCES_FILE), (read_hashes, PATIENTS_FILE))
    for read, name in records:
        try:
            read(root)
        except FormatError as error:
            what = f"the record of the {name.removeprefix('.')} is damaged"
            yield Problem(what, str(root / name), str(error), REMOVE_FILE)


def _find_leftovers(root: Path) -> Iterator[Finding]:
    """Report what a killed run left: unfinished files, and volumes without metadata."""
    aside = [path for path in root.glob(".*") if is_scratch(path.name)]
    for pattern in (f"{SCRATCH}/*", f"{VOLUMES}/.*", f"{VOLUMES}/*/.*"):
        aside.extend(root.glob(pattern))
    for path in sorted(aside):
        detail, cure = "never became part of the cache", f"remove it or {PREPROCESS_AGAIN}"
        yield Problem("a leftover of a killed run", str(path), detail, cure)
    for folder in sorted((root / VOLUMES).glob("*/*/")):
        if not (folder / METADATA).is_file():
            where = f"{folder.parent.name}/{folder.name}"
            yield Problem("a volume without metadata", where, f"no {METADATA}", REMOVE_VOLUME)


def _check_groups(root: Path, stored: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Check the Zarr groups above the volumes; lumbar does not read them, other programs do."""
    studies = sorted({study_id for study_id, _ in stored})
    for folder in (root / VOLUMES, *(root / VOLUMES / study_id for study_id in studies)):
        path = folder / METADATA
        try:
            found = "not the bytes of a group" if path.read_bytes() != GROUP else ""
        except OSError as error:
            found = f"{type(error).__name__}: {error}"
        if found:
            yield Problem(DAMAGED_GROUP, str(path), found, f"remove it and {PREPROCESS_AGAIN}")


def _compare_ids(rows: list[dict[str, Any]], stored: list[tuple[str, str]]) -> Iterator[Finding]:
    """Report volumes without a row and duplicate rows; rows without a volume come later."""
    ids = Counter((row["study_id"], row["series_id"]) for row in rows)
    for key in sorted(set(stored) - set(ids)):
        detail = f"it is not in {SERIES_TABLE}"
        yield Problem("a volume has no row", "/".join(key), detail, PREPROCESS_AGAIN)
    for key in sorted(key for key, count in ids.items() if count > 1):
        where = "/".join(key)
        yield Problem("a series has two rows", where, f"in {SERIES_TABLE}", PREPROCESS_AGAIN)


def _row_from_metadata(
    root: Path, study_id: str, series_id: str, rows: list[dict[str, Any]]
) -> Iterator[Finding]:
    """Append the row made from a volume's metadata, where the series table is damaged."""
    try:
        rows.append(series_row(root, study_id, series_id))
    except FormatError as error:
        yield Problem("metadata is damaged", f"{study_id}/{series_id}", str(error), REMOVE_VOLUME)


def _check_volume(root: Path, row: dict[str, Any], profile: Profile | None) -> Iterator[Finding]:
    """Compare one volume's metadata and chunk with its row."""
    where = f"{row['study_id']}/{row['series_id']}"
    metadata = volume_folder(root, row["study_id"], row["series_id"]) / METADATA
    if not metadata.is_file():
        yield Problem("a row has no volume", where, f"no {METADATA}", PREPROCESS_AGAIN)
        return
    text = metadata.read_bytes()
    found = crc32c(text)
    if found != row["metadata_crc32c"]:
        detail = f"crc32c {found}, {SERIES_TABLE} says {row['metadata_crc32c']}"
        yield Problem("metadata is damaged", where, detail, REMOVE_VOLUME)
    else:
        yield from _compare_row(root, row, where)
        yield from _compare_profile(text, profile, where)
    path = root / row["path"]
    if not path.is_file():
        yield Problem("a chunk is missing", where, f"no file {row['path']}", REMOVE_VOLUME)
        return
    data = path.read_bytes()
    if len(data) != row["nbytes"]:
        detail = f"{len(data)} bytes, {SERIES_TABLE} says {row['nbytes']}"
        yield Problem("a chunk has another size", where, detail, REMOVE_VOLUME)
    elif crc32c(data) != row["crc32c"]:
        detail = f"crc32c {crc32c(data)}, {SERIES_TABLE} says {row['crc32c']}"
        yield Problem("a chunk is damaged", where, detail, REMOVE_VOLUME)
    yield Checked(where, len(data))


def _compare_row(root: Path, row: dict[str, Any], where: str) -> Iterator[Finding]:
    """Compare a row with the one made from the volume's metadata."""
    try:
        rebuilt = series_row(root, row["study_id"], row["series_id"])
    except FormatError as error:
        yield Problem("metadata is damaged", where, str(error), REMOVE_VOLUME)
        return
    differing = [name for name in rebuilt if rebuilt[name] != row[name]]
    if differing:
        name = differing[0]
        detail = f"{name} is {row[name]}, in the volume {rebuilt[name]}"
        yield Problem("a row differs from its volume", where, detail, PREPROCESS_AGAIN)


def _compare_profile(text: bytes, profile: Profile | None, where: str) -> Iterator[Finding]:
    """Compare a volume's profile with the cache's, which decides how it is read."""
    if profile is None:
        return  # the description is damaged
    try:
        found = parse_metadata(text, where=where)["profile"]
    except FormatError:
        return  # reported when its row was compared
    if found != profile:
        detail = f"{found}, {CACHE_FILE} says {profile}"
        yield Problem("a volume of another profile", where, detail, REMOVE_VOLUME)


def _check_labels(labels: pl.DataFrame) -> Iterator[Finding]:
    """Compare the one-hot columns with the known ones. A study needs no row."""
    study_ids = labels["study_id"].to_list()
    one_hot, known = label_arrays(labels)
    wrong = (one_hot.sum(axis=2, dtype=np.int64) != known) | (one_hot > 1).any(axis=2)
    for study, cell in np.argwhere(wrong):
        yield Problem(
            "a label contradicts itself",
            study_ids[study],
            f"{CELLS[cell]} is {one_hot[study, cell].tolist()}, known is {known[study, cell]}",
            PREPROCESS_AGAIN,
        )
    for study_id in sorted(i for i, count in Counter(study_ids).items() if count > 1):
        yield Problem(
            "a study has two label rows", study_id, f"in {LABELS_TABLE}", PREPROCESS_AGAIN
        )


def _check_coordinates(points: pl.DataFrame, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Check that points with voxel coordinates lie in a cached volume.

    A point has none if its series is not cached, its slice was left out or its place was cropped.
    """
    shapes = {
        (row["study_id"], row["series_id"]): (row["depth"], row["height"], row["width"])
        for row in rows
    }
    for point in points.iter_rows(named=True):
        where = f"{point['study_id']}/{point['series_id']}"
        cell = f"{point['condition']}_{point['level']}"
        if cell not in CELLS:
            yield Problem("a point of an unknown cell", where, cell, PREPROCESS_AGAIN)
        voxel = [point[axis] for axis in "dhw"]
        if all(v is None or np.isnan(v) for v in voxel):
            continue
        at = f"{point['condition']} {point['level']} at (d, h, w) = {tuple(voxel)}"
        shape = shapes.get((point["study_id"], point["series_id"]))
        if shape is None:
            yield Problem("a point in a volume that is gone", where, at, PREPROCESS_AGAIN)
        elif not all(
            v is not None and -HALF_VOXEL <= v <= size - HALF_VOXEL
            for v, size in zip(voxel, shape, strict=True)
        ):
            detail = f"{at}, the volume is {shape}"
            yield Problem("a point outside its volume", where, detail, PREPROCESS_AGAIN)
