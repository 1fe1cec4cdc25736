"""A cache in another profile, made of the stored voxels: the DICOM files are not needed."""

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
from lumbar.pipeline.execution.failures import said_plainly
from lumbar.pipeline.execution.runner import Lost
from lumbar.pipeline.execution.workers import worker_pool
from lumbar.pipeline.geometry.points import PLACED
from lumbar.pipeline.output.open_cache import check_folder, open_cache, tidy_volumes
from lumbar.pipeline.output.write_tables import Origin, write_tables
from lumbar.pipeline.reject import Reason, Rejection
from lumbar.pipeline.source.patients import known_hashes
from lumbar.pipeline.source.tables import Tables


@dataclass(frozen=True, slots=True)
class VolumeTask:
    """One volume to write again: ``row`` of ``source``, into ``out``."""

    source: Path
    row: int
    out: Path
    profile: Profile
    config_hash: str


def reprofile(source: Path, out: Path, profile: Profile, *, workers: int) -> Iterator[VolumeTaken]:
    """Make ``out`` of a finished cache: the same voxels and tables in another profile.

    Its bytes are those of a preprocess with that profile. Stopped anywhere, a second call goes on.

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
    with said_plainly(out), locked(out), worker_pool(workers) as runner:
        open_cache(out, settings, split, None, overwrite=False)
        for taken in runner.run(write_again, tasks):
            if isinstance(taken, Lost):
                raise LumbarError(what="a worker process was lost", got=taken.detail)
            yield taken
        tidy_volumes(out)
        rejections = [
            Rejection(**row | {"reason": Reason(row["reason"])})
            for row in cache.rejected.iter_rows(named=True)
        ]
        points = cache.coordinates.drop(PLACED)
        tables = Tables(None, cache.labels, None if points.is_empty() else points)
        patients = tuple(map(tuple, origin["patients"])) if cache.knows_patients else None
        if (source / PATIENTS_FILE).exists():
            write_hashes(out, known_hashes(source))
        found = Origin(settings, split, studies, patients=patients)
        write_tables(out, found, tables, rejections)


@functools.cache
def _opened(source: Path) -> Cache:
    return Cache(source)


def write_again(task: VolumeTask) -> VolumeTaken:
    """Write one volume in another profile, unless it is there.

    Raises
    ------
    FormatError
        If its voxels are not those that were stored.
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
        pass  # what stands there is written over
    path = task.source / entry["path"]
    found = crc32c(path.read_bytes())
    if found != entry["crc32c"]:
        raise chunk_error(path, got=f"crc32c {found}", expected=f"crc32c {entry['crc32c']}")
    write_volume(task.out, cache.volume(task.row), attributes, profile=task.profile)
    return VolumeTaken(*key)
