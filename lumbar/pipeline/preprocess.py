"""DICOM and CSV files become a cache: `preprocess` reads as its steps and yields events."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.format import is_safe_id
from lumbar.cache.index import find_volumes
from lumbar.cache.lock import locked
from lumbar.cache.patients import write_hashes
from lumbar.pipeline.cluster import dask_cluster
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.events import (
    Event,
    Finished,
    HeadersRead,
    Planned,
    Scanned,
    SeriesFinished,
)
from lumbar.pipeline.finish import Origin, Tables, keep_old, read_tables, write_tables
from lumbar.pipeline.gpu import warn_without_gpu
from lumbar.pipeline.group import Groups, group_by_folder, group_by_uid, reject_missing
from lumbar.pipeline.layout import Layout, Split, find_layout
from lumbar.pipeline.open_cache import (
    Known,
    check_folder,
    known_rejections,
    open_cache,
    tidy_volumes,
)
from lumbar.pipeline.patients import Source as SourceFiles
from lumbar.pipeline.patients import hash_patients, known_hashes
from lumbar.pipeline.reject import Rejection
from lumbar.pipeline.runner import Runner
from lumbar.pipeline.scan import Identified, find_study_folders, walk
from lumbar.pipeline.series import SeriesResult
from lumbar.pipeline.shard import Shard
from lumbar.pipeline.source import SeriesTask
from lumbar.pipeline.stopped import said_plainly
from lumbar.pipeline.suspects import convert_safely, identify_safely
from lumbar.pipeline.unchanged import Key, Sources
from lumbar.pipeline.workers import TIMEOUT_S, worker_pool

__all__ = ["PreprocessConfig", "preprocess"]

SCAN_BATCH = 256
"""Files a scan task, and between two `Scanned` events."""

RECORD_EVERY_S = 30.0
"""Between two records of what has been read, so that a killed run need not read it again."""

MOST_NAMED = 5

Check = Literal["stat", "contents"]

Item = TypeVar("Item")

_log = logging.getLogger(__name__)


def preprocess(
    src: Path,
    out: Path,
    config: PreprocessConfig,
    *,
    workers: int,
    split: Split | None = None,
    overwrite: bool = False,
    check: Check = "stat",
    shard: Shard | None = None,
    timeout_s: float = TIMEOUT_S,
    scheduler: str | None = None,
    is_kept: bool = True,
) -> Iterator[Event]:
    """Make or bring up to date the cache ``out`` from the DICOM files below ``src``.

    ``workers=0`` works in this process. Worker processes also stand a decoder that crashes, or
    that takes longer than ``timeout_s`` for a series: it costs the guilty files alone.

    Stopped anywhere, even killed, a second run goes on and ends with the same bytes. A series whose
    files have the sizes and times of the last run is not read again; with ``check="contents"`` it
    is, and decoded again where its bytes differ. Series that are gone from the source stay in the
    cache and are counted, as are labels and points whose CSV file is gone; ``overwrite`` starts
    from nothing and allows another configuration or split.

    ``scheduler`` is the address of a Dask cluster that does the work in place of own processes.
    A cache that is not ``is_kept`` goes with the caller: nothing of it is promised to stay. A
    ``shard`` is a cache of its own with a part of the studies, for `lumbar.pipeline.merge`.

    Raises
    ------
    InputError, MissingError
        If the source, a CSV file or the output folder is not what it has to be, or the cache was
        made with another configuration, from another split or shard.
    BusyError
        If another run holds the cache.
    LumbarError
        If the disk is full, the source goes away or worker processes cannot start.
    """
    layout = find_layout(src, split)
    tables = read_tables(layout)
    settings = config.model_dump(mode="json")
    if config.decode == "gpu":
        warn_without_gpu()
    check_folder(out, settings)
    _check_not_empty(layout, out)
    out.mkdir(parents=True, exist_ok=True)
    if scheduler is None:
        runners = worker_pool(workers, timeout_s=timeout_s)
    else:
        runners = dask_cluster(scheduler)
        layout, out = layout.resolve(), out.resolve()  # other machines have other working folders
    with said_plainly(out, layout.images, is_kept=is_kept), locked(out), runners as runner:
        left = open_cache(out, settings, layout.split, shard, overwrite=overwrite)
        tables = keep_old(tables, out)
        sources = Sources.of(out) if check == "stat" else Sources()
        before = set(find_volumes(out))
        groups = yield from _find_series(layout, out, runner, sources)
        every_file = [path for paths in groups.files.values() for path in paths]
        if shard is not None:
            groups, tables = _part(groups, shard), tables.part(shard)
        vanished = sorted(before - groups.files.keys())
        reject_missing(groups, tables.types or {}, vanished)
        tasks = plan_tasks(groups, layout, tables, out, config, known=left.rejections)
        yield _planned(tasks, before)
        results = yield from _bring_up_to_date(tasks, runner, sources, out)
        tidy_volumes(out)
        rejections = [*groups.rejections, *known_rejections(left.rejections, results, vanished)]
        studies = _find_studies(groups, layout, tables, out, shard)
        hashes = hash_patients(
            SourceFiles(layout.images, groups.files),
            every_file,
            known_hashes(out),
            changed={result.study_id for result in results if not result.cached},
        )
        write_hashes(out, hashes)
        name = None if shard is None else str(shard)
        patients = hashes.groups(left.patients)
        origin = Origin(settings, layout.split, studies, name, patients)
        series, rejected = write_tables(
            out, origin, tables, rejections, is_finished=left.is_finished
        )
        _warn_of_vanished(vanished)
        yield _finished(series, rejected, results, before)


def _part(groups: Groups, shard: Shard) -> Groups:
    """Return what belongs to the studies of a shard; files of no study belong to one of them."""
    return Groups(
        {key: files for key, files in groups.files.items() if shard.holds(key[0])},
        [rejection for rejection in groups.rejections if shard.holds(rejection.study_id)],
    )


def _warn_of_vanished(vanished: list[Key]) -> None:
    if vanished:
        named = ", ".join("/".join(key) for key in vanished[:MOST_NAMED])
        more = ", ..." if len(vanished) > MOST_NAMED else ""
        _log.warning(
            "%d cached series are no longer in the source; they stay: %s%s",
            len(vanished),
            named,
            more,
        )


def _find_studies(
    groups: Groups, layout: Layout, tables: Tables, out: Path, shard: Shard | None
) -> frozenset[str]:
    """Return the studies of the source or shard, be all their files broken or absent."""
    if layout.split is None:
        return frozenset(study_id for study_id, _ in groups.files if is_safe_id(study_id))
    named = {study_id for study_id, _ in tables.types or {}}
    # A study may be an archive, and no folder.
    named.update(study_id for study_id, _ in groups.files if is_safe_id(study_id))
    found = named.union(find_study_folders(layout.images, out.resolve()))
    return frozenset(study_id for study_id in found if shard is None or shard.holds(study_id))


def _check_not_empty(layout: Layout, out: Path) -> None:
    if next(_walk(layout, out), None) is None:
        raise InputError(
            what="the source holds no file",
            where=layout.images,
            got="no file in it or in any folder below",
            expected="DICOM files",
            cure="check --src",
        )


def _walk(layout: Layout, out: Path) -> Iterator[str | Rejection]:
    """Yield the files of a source; a link may lead to any file below the folder of its tables."""
    return walk(layout.images, out.resolve(), inside=layout.tables)


def _find_series(
    layout: Layout, out: Path, runner: Runner, sources: Sources
) -> Generator[Event, None, Groups]:
    """Find all files, look at their sizes and times, and group them to series."""
    found: list[str | Rejection] = []
    for batch in _batches(_walk(layout, out)):
        found.extend(batch)
        sources.look_at(layout.images, (item for item in batch if isinstance(item, str)))
        yield Scanned(len(found))
    if layout.split is not None:
        return group_by_folder(found)
    rejections = [item for item in found if isinstance(item, Rejection)]
    paths = [item for item in found if isinstance(item, str)]
    known, unknown = sources.identify(paths)
    identified: list[Identified | Rejection] = [*known]
    read = identify_safely(layout.images, _batches(unknown), runner)
    for n_read, item in enumerate(read, 1):
        identified.append(item)
        if n_read % SCAN_BATCH == 0 or n_read == len(unknown):
            yield HeadersRead(n_read, len(unknown))
    identified.sort(key=lambda item: item.path)
    return group_by_uid([*rejections, *identified])


def plan_tasks(
    groups: Groups,
    layout: Layout,
    tables: Tables,
    out: Path,
    config: PreprocessConfig,
    *,
    known: Known,
) -> list[SeriesTask]:
    """Return one task a series, in order."""
    types = tables.types or {}
    return [
        SeriesTask(
            study_id=study_id,
            series_id=series_id,
            source=layout.images,
            files=tuple(sorted(files)),
            named=types.get((study_id, series_id)),
            has_csv=tables.types is not None,
            cache=out,
            config=config,
            knows_left_out=(study_id, series_id) in known,
        )
        for (study_id, series_id), files in sorted(groups.files.items())
    ]


def _bring_up_to_date(
    tasks: list[SeriesTask], runner: Runner, sources: Sources, out: Path
) -> Generator[Event, None, list[SeriesResult]]:
    """Convert the series that are not stored as they are; keep the record of their files."""
    by_key = {(task.study_id, task.series_id): task for task in tasks}
    results: list[SeriesResult] = []
    changed: list[SeriesTask] = []
    for task in tasks:
        result = sources.find_unchanged(task)
        if result is None:
            changed.append(task)
        else:
            results.append(result)
            yield _finished_series(result)
    if not changed:
        return results
    due_s = time.monotonic() + RECORD_EVERY_S
    try:
        for result in convert_safely(changed, runner):
            results.append(result)
            sources.add(by_key[result.study_id, result.series_id], result)
            if time.monotonic() >= due_s:
                sources.write(out)
                due_s = time.monotonic() + RECORD_EVERY_S
            yield _finished_series(result)
    finally:
        with suppress(OSError):  # on a full disk; the record only saves time
            sources.write(out)
    return results


def convert_all(
    tasks: Iterable[SeriesTask], runner: Runner
) -> Generator[Event, None, list[SeriesResult]]:
    """Convert all series; raise `OSError` where the cache or the source fails as a whole."""
    results = []
    for result in convert_safely(tasks, runner):
        results.append(result)
        yield _finished_series(result)
    return results


def _planned(tasks: list[SeriesTask], before: set[Key]) -> Planned:
    n_stored = sum((task.study_id, task.series_id) in before for task in tasks)
    return Planned(len(tasks), sum(len(task.files) for task in tasks), n_stored)


def _finished_series(result: SeriesResult) -> SeriesFinished:
    return SeriesFinished(
        result.study_id,
        result.series_id,
        result.n_files,
        result.nbytes,
        result.cached,
        result.reason,
    )


def _finished(
    series: pl.DataFrame, rejected: pl.DataFrame, results: list[SeriesResult], before: set[Key]
) -> Finished:
    stored = [result for result in results if result.reason is None]
    decoded = [result for result in stored if not result.cached]
    seen = {(result.study_id, result.series_id) for result in results}
    return Finished(
        n_series=series.height,
        n_reused=len(stored) - len(decoded),
        n_changed=sum((result.study_id, result.series_id) in before for result in decoded),
        n_rejected_series=len(results) - len(stored),
        n_vanished=len(before - seen),
        n_files=sum(result.n_files for result in results),
        rejected_by_reason=_count(rejected["reason"]),
        flags=_count(series["flags"].explode().drop_nulls()),
    )


def _count(values: pl.Series) -> dict[str, int]:
    return dict(Counter(values.to_list()).most_common())


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    waiting = iter(items)
    while batch := list(islice(waiting, SCAN_BATCH)):
        yield batch
