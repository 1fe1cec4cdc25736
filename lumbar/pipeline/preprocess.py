"""DICOM and CSV files become a cache: `preprocess` reads as its steps and yields events."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl

from lumbar.cache.files.lock import LOCK, locked
from lumbar.cache.format import is_safe_id
from lumbar.cache.index import find_volumes
from lumbar.cache.patients import write_hashes
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.dicom.gpu_decode import warn_without_gpu
from lumbar.pipeline.events import Event, Finished, HeadersRead, Join, Planned, SeriesFinished
from lumbar.pipeline.execution.cluster import dask_cluster
from lumbar.pipeline.execution.failures import said_plainly
from lumbar.pipeline.execution.isolate import convert_safely, identify_safely
from lumbar.pipeline.execution.runner import Runner
from lumbar.pipeline.execution.workers import TIMEOUT_S, worker_pool
from lumbar.pipeline.output.open_cache import (
    Known,
    check_folder,
    check_origin,
    known_rejections,
    open_cache,
    tidy_volumes,
)
from lumbar.pipeline.output.unchanged import Key, Sources
from lumbar.pipeline.output.write_tables import Origin, Written, keep_old, write_tables
from lumbar.pipeline.reject import Rejection
from lumbar.pipeline.series.companions import find_companions
from lumbar.pipeline.series.convert import SeriesResult
from lumbar.pipeline.series.files import SeriesTask
from lumbar.pipeline.source.group import Groups, group_by_uid, reject_missing
from lumbar.pipeline.source.layout import Layout, Split, find_layout
from lumbar.pipeline.source.patients import Source as SourceFiles
from lumbar.pipeline.source.patients import hash_patients, known_hashes
from lumbar.pipeline.source.scan import Identified
from lumbar.pipeline.source.shard import Shard
from lumbar.pipeline.source.tables import Tables, read_tables
from lumbar.pipeline.survey import SCAN_BATCH, Survey, check_not_empty, in_batches, survey

__all__ = ["PreprocessConfig", "preprocess"]

RECORD_EVERY_S = 30.0
"""Between two records of what has been read, so that a killed run need not read it again."""

MOST_NAMED = 5

Check = Literal["stat", "contents"]

_log = logging.getLogger(__name__)


def preprocess(
    src: Path | Survey,
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

    ``src`` may have been surveyed before, so that several parts of it do not each look at it.

    ``workers=0`` works in this process. Worker processes also stand a decoder that crashes, or
    that takes longer than ``timeout_s`` for a series: it costs the guilty files alone.

    Stopped anywhere, even killed, a second run goes on and ends with the same bytes. A series whose
    files have the sizes and times of the last run is not read again; with ``check="contents"`` it
    is, and decoded again where its bytes differ. Series that are gone from the source stay in the
    cache and are counted, as are labels and points whose CSV file is gone; ``overwrite`` starts
    from nothing and allows another configuration or split.

    ``scheduler`` is the address of a Dask cluster that does the work in place of own processes.
    A cache that is not ``is_kept`` goes with the caller: nothing of it is promised to stay. A
    ``shard`` is a cache of its own with a part of the studies, for `lumbar merge`.

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
    layout = src.layout if isinstance(src, Survey) else find_layout(src, split)
    tables = src.tables if isinstance(src, Survey) else read_tables(layout)
    settings = config.model_dump(mode="json")
    if config.decode == "gpu":
        warn_without_gpu()
    check_folder(out, settings)
    if not overwrite:
        check_origin(out, settings, layout.split, shard)
    if not isinstance(src, Survey):
        check_not_empty(layout, out)
    if scheduler is None:
        runners = worker_pool(workers, timeout_s=timeout_s)
    else:
        runners = dask_cluster(scheduler)
        layout, out = layout.resolve(), out.resolve()  # other machines have other working folders
    with said_plainly(out, layout.images, is_kept=is_kept), ExitStack() as held:
        surveyed = yield from _look_and_lock(held, src, layout, tables, out, overwrite=overwrite)
        runner = held.enter_context(runners)
        left = open_cache(out, settings, layout.split, shard, overwrite=overwrite)
        tables = keep_old(surveyed.tables, out)
        known = Sources.of(out).known if check == "stat" else {}
        sources = replace(surveyed.sources, known=known)
        before = set(find_volumes(out))
        groups = surveyed.groups
        if groups is None:
            groups = yield from _identify(surveyed, runner, sources)
        every_file = [path for paths in groups.files.values() for path in paths]
        groups = _part(groups, shard)
        if shard is not None:
            tables = tables.part(shard)
        vanished = sorted(before - groups.files.keys())
        reject_missing(groups, tables.types or {}, vanished)
        tasks = plan_tasks(groups, layout, tables, out, config, known=left.rejections)
        yield _planned(tasks, before)
        results = yield from _bring_up_to_date(tasks, runner, sources, out)
        tidy_volumes(out)
        rejections = [*groups.rejections, *known_rejections(left.rejections, results, vanished)]
        studies = _find_studies(groups, surveyed, out, shard)
        hashes = hash_patients(
            SourceFiles(layout.images, groups.files),
            every_file,
            known_hashes(out),
            changed={result.study_id for result in results if not result.cached},
        )
        write_hashes(out, hashes)
        name = None if shard is None else str(shard)
        origin = Origin(settings, layout.split, studies, name, hashes.groups(left.patients))
        written = write_tables(out, origin, tables, rejections, is_finished=left.is_finished)
        _warn_of_vanished(vanished)
        yield _finished(written, results, before, surveyed.joins)


def _look_and_lock(
    held: ExitStack,
    src: Path | Survey,
    layout: Layout,
    tables: Tables,
    out: Path,
    *,
    overwrite: bool,
) -> Generator[Event, None, Survey]:
    """Survey a source, unless it is known, and lock the cache while ``held`` is open.

    A folder that is no cache yet is left as it is until all is known that may be refused.
    """
    is_new = not (out / LOCK).exists()
    if not is_new:
        held.enter_context(locked(out))
    if isinstance(src, Survey):
        surveyed = replace(src, layout=layout)
    else:
        cached = set(find_volumes(out)) if out.is_dir() and not overwrite else set()
        surveyed = yield from survey(layout, tables, src, out, cached)
    if is_new:
        out.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(out))
    return surveyed


def _part(groups: Groups, shard: Shard | None) -> Groups:
    """Return what belongs to the studies of a shard; files of no study belong to one of them."""

    def holds(study_id: str) -> bool:
        return shard is None or shard.holds(study_id)

    return Groups(
        {key: files for key, files in groups.files.items() if holds(key[0])},
        [rejection for rejection in groups.rejections if holds(rejection.study_id)],
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
    groups: Groups, surveyed: Survey, out: Path, shard: Shard | None
) -> frozenset[str]:
    """Return the studies of the source or shard, be all their files broken or absent."""
    if surveyed.groups is None:
        return frozenset(study_id for study_id, _ in groups.files if is_safe_id(study_id))
    found = surveyed.studies(out.resolve())
    return frozenset(study_id for study_id in found if shard is None or shard.holds(study_id))


def _identify(surveyed: Survey, runner: Runner, sources: Sources) -> Generator[Event, None, Groups]:
    """Group the files of a bare tree by what their headers say."""
    rejections = [item for item in surveyed.found if isinstance(item, Rejection)]
    paths = [item for item in surveyed.found if isinstance(item, str)]
    known, unknown = sources.identify(paths)
    identified: list[Identified | Rejection] = []
    while unknown:
        read = identify_safely(surveyed.layout.images, in_batches(unknown), runner)
        for n_read, item in enumerate(read, 1):
            identified.append(item)
            if n_read % SCAN_BATCH == 0 or n_read == len(unknown):
                yield HeadersRead(n_read, len(unknown))
        unknown = sources.find_neighbours(known, (item.study_id for item in identified))
    identified.extend(known)
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
    shared = groups.shared if layout.split is None else set()
    companions = {} if layout.split is None else find_companions(groups.files)
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
            by_folder=layout.split is not None,
            shares_uid=(study_id, series_id) in shared,
            companions=companions.get((study_id, series_id), ()),
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
    written: Written, results: list[SeriesResult], before: set[Key], joins: tuple[Join, ...]
) -> Finished:
    stored = [result for result in results if result.reason is None]
    decoded = [result for result in stored if not result.cached]
    seen = {(result.study_id, result.series_id) for result in results}
    return Finished(
        n_series=written.series.height,
        n_reused=len(stored) - len(decoded),
        n_changed=sum((result.study_id, result.series_id) in before for result in decoded),
        n_rejected_series=len(results) - len(stored),
        n_vanished=len(before - seen),
        n_files=sum(result.n_files for result in results),
        rejected_by_reason=_count(written.rejected["reason"]),
        flags=_count(written.series["flags"].explode().drop_nulls()),
        joins=joins,
        n_points=written.n_points,
        points_by_flag=written.points_by_flag,
    )


def _count(values: pl.Series) -> dict[str, int]:
    return dict(Counter(values.to_list()).most_common())
