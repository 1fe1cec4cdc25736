"""Convert a cache to another profile from its stored voxels, without the DICOM files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lumbar.cache.errors import FormatError, InputError, LumbarError
from lumbar.cache.files.lock import locked
from lumbar.cache.format import Profile
from lumbar.cache.patients import write_hashes
from lumbar.cache.store import Cache, empty_cache
from lumbar.cache.tables import PATIENTS_FILE, config_hash
from lumbar.cache.volumes import chunk_error, crc32c, read_attributes, write_volume
from lumbar.pipeline.events import VolumeTaken
from lumbar.pipeline.execution.failures import plain_errors
from lumbar.pipeline.execution.runner import Lost
from lumbar.pipeline.execution.workers import worker_pool
from lumbar.pipeline.output.open_cache import check_folder, open_cache, tidy_volumes
from lumbar.pipeline.output.write_tables import Origin, stored_tables, write_tables
from lumbar.pipeline.reject import Rejection
from lumbar.pipeline.source.patients import known_hashes


@dataclass(frozen=True, slots=True)
class VolumeTask:
    """One volume to convert: ``row`` of the cache ``source``, into ``out``."""

    source: Path
    row: int
    out: Path
    profile: Profile
    config_hash: str


def reprofile(source: Path, out: Path, profile: Profile, *, workers: int) -> Iterator[VolumeTaken]:
    """Write a finished cache in another profile: the same voxels and tables.

    The bytes equal those of a preprocess run with that profile. After a stop a second call goes on.

    Raises
    ------
    InputError, MissingError, FormatError
        If the source is no finished cache or is damaged, or the output is something else.
    BusyError
        If another run holds the output.
    LumbarError
        If the source holds no series.
    """
    cache = Cache(source)
    if source.resolve() == out.resolve():
        raise InputError(
            what="source and output are the same folder", where=out, cure="name another --out"
        )
    if cache.series.is_empty():
        raise empty_cache(cache)
    settings = cache.description["config"] | {"profile": profile}
    check_folder(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    origin = cache.description.get("source", {})
    split, studies = origin.get("split"), frozenset(origin.get("studies", ()))
    tasks = [
        VolumeTask(source, row, out, profile, config_hash(settings))
        for row in range(cache.series.height)
    ]
    with plain_errors(out), locked(out), worker_pool(workers) as runner:
        open_cache(out, settings, split, None, overwrite=False)
        for taken in runner.run(convert_volume, tasks):
            if isinstance(taken, Lost):
                raise LumbarError(what="a worker process was lost", got=taken.detail)
            yield taken
        tidy_volumes(out)
        rejections = map(Rejection.from_row, cache.rejected.iter_rows(named=True))
        tables = stored_tables(cache.labels, cache.coordinates)
        patients = tuple(map(tuple, origin["patients"])) if cache.knows_patients else None
        if (source / PATIENTS_FILE).exists():
            write_hashes(out, known_hashes(source))
        found = Origin(settings, split, studies, patients=patients)
        write_tables(out, found, tables, rejections)


@functools.cache
def _opened(source: Path) -> Cache:
    return Cache(source)


def convert_volume(task: VolumeTask) -> VolumeTaken:
    """Write one volume in another profile, unless that is done.

    Raises
    ------
    FormatError
        If its voxels have changed since they were stored.
    """
    cache = _opened(task.source)
    entry = cache.series.row(task.row, named=True)
    key = entry["study_id"], entry["series_id"]
    attributes = replace(cache.attributes(task.row), config_hash=task.config_hash)
    try:
        stored = read_attributes(task.out, *key)
        if stored is not None and stored.to_json() == attributes.to_json():
            return VolumeTaken(*key)
    except FormatError:
        pass  # a damaged volume is overwritten
    path = task.source / entry["path"]
    found = crc32c(path.read_bytes())
    if found != entry["crc32c"]:
        raise chunk_error(path, got=f"crc32c {found}", expected=f"crc32c {entry['crc32c']}")
    write_volume(task.out, cache.volume(task.row), attributes, profile=task.profile)
    return VolumeTaken(*key)
