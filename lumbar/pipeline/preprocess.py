"""Make a cache from DICOM and CSV files: `preprocess` reads as its steps and yields events."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterator
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
from lumbar.pipeline.execution.failures import plain_errors
from lumbar.pipeline.execution.isolate import convert_safely, identify_safely
from lumbar.pipeline.execution.runner import Runner
from lumbar.pipeline.execution.workers import TIMEOUT_S, worker_pool
from lumbar.pipeline.output.open_cache import (
    KnownRejections,
    check_folder,
    check_origin,
    known_rejections,
    open_cache,
    tidy_volumes,
)
from lumbar.pipeline.output.unchanged import Key, SourceRecord
from lumbar.pipeline.output.write_tables import Origin, WrittenTables, keep_old, write_tables
from lumbar.pipeline.reject import Rejection, first_of
from lumbar.pipeline.series.convert import SeriesResult
from lumbar.pipeline.series.other_patients import find_companions
from lumbar.pipeline.series.task import SeriesTask
from lumbar.pipeline.source.group import Groups, group_by_uid, reject_missing
from lumbar.pipeline.source.layout import Layout, Split, find_layout
from lumbar.pipeline.source.patients import hash_patients, known_hashes
from lumbar.pipeline.source.rsna_csv import CsvTables, read_tables
from lumbar.pipeline.source.scan import Identified
from lumbar.pipeline.source.shard import Shard
from lumbar.pipeline.survey import SCAN_BATCH, Survey, check_not_empty, in_batches, survey

__all__ = ["PreprocessConfig", "preprocess"]

RECORD_EVERY_S = 30.0
"""Seconds between two records of what was read, so that a killed run need not read it again."""

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
    """Make the cache ``out`` from the DICOM files below ``src``, or bring it up to date.

    ``src`` may be a survey of the source, so that several shards do not each survey it.

    ``workers=0`` works in this process. With worker processes a decoder may crash, or take longer
    than ``timeout_s`` for a series: only the files that cause it are left out.

    After a stop, even by a kill, a second run goes on and ends with the same bytes. A series whose
    files have the sizes and times of the last run is not read again. With ``check="contents"`` it
    is read, and decoded again if its bytes differ. Series that are gone from the source stay in the
    cache and are counted, as are labels and points whose CSV file is gone. ``overwrite`` starts
    again and allows another configuration or split.

    ``scheduler`` is the address of a Dask cluster that does the work in place of own processes.
    A cache that is not ``is_kept`` is temporary. A ``shard`` is a cache of its own with a part of
    the studies, for `lumbar merge`.

    Raises
    ------
    InputError, MissingError
        If the source, a CSV file or the output folder is wrong, or the cache was made with another
        configuration, split or shard.
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
    with plain_errors(out, layout.images, is_kept=is_kept), ExitStack() as held:
        surveyed = yield from _survey_and_lock(held, src, layout, tables, out, overwrite=overwrite)
        runner = held.enter_context(runners)
        left = open_cache(out, settings, layout.split, shard, overwrite=overwrite)
        tables = keep_old(surveyed.tables, out)
        known = SourceRecord.of(out).known if check == "stat" else {}
        record = replace(surveyed.record, known=known)
        before = set(find_volumes(out))
        groups = surveyed.groups
        if groups is None:
            groups = yield from _identify(surveyed, runner, record)
        every_file = [path for paths in groups.files.values() for path in paths]
        groups = _part(groups, shard)
        if shard is not None:
            tables = tables.part(shard)
        vanished = sorted(before - groups.files.keys())
        reject_missing(groups, tables.types or {}, vanished)
        tasks = plan_tasks(groups, layout, tables, out, config, known=left.rejections)
        yield _planned(tasks, before)
        results = yield from _convert_changed(tasks, runner, record, out)
        tidy_volumes(out)
        rejections = [*groups.rejections, *known_rejections(left.rejections, results, vanished)]
        studies = _find_studies(groups, surveyed, out, shard)
        hashes = hash_patients(
            layout.images,
            groups.files,
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


def _survey_and_lock(
    held: ExitStack,
    src: Path | Survey,
    layout: Layout,
    tables: CsvTables,
    out: Path,
    *,
    overwrite: bool,
) -> Generator[Event, None, Survey]:
    """Survey a source, unless that is done, and lock the cache while ``held`` is open.

    A folder that is no cache yet stays as it is until all checks have passed.
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
    """Return the series and rows of a shard's studies; "" counts as a study's id."""
    if shard is None:
        return groups
    return Groups(
        {key: files for key, files in groups.files.items() if shard.holds(key[0])},
        [rejection for rejection in groups.rejections if shard.holds(rejection.study_id)],
    )


def _warn_of_vanished(vanished: list[Key]) -> None:
    if vanished:
        _log.warning(
            "%d cached series are no longer in the source; they stay: %s",
            *(len(vanished), first_of(["/".join(key) for key in vanished], MOST_NAMED)),
        )


def _find_studies(
    groups: Groups, surveyed: Survey, out: Path, shard: Shard | None
) -> frozenset[str]:
    """Return the studies of the source or shard, including those without a usable file."""
    if surveyed.groups is None:
        return frozenset(study_id for study_id, _ in groups.files if is_safe_id(study_id))
    found = surveyed.studies(out.resolve())
    return frozenset(study_id for study_id in found if shard is None or shard.holds(study_id))


def _identify(
    surveyed: Survey, runner: Runner, record: SourceRecord
) -> Generator[Event, None, Groups]:
    """Group the files of a bare tree by their headers."""
    rejections = [item for item in surveyed.found if isinstance(item, Rejection)]
    paths = [item for item in surveyed.found if isinstance(item, str)]
    known, unknown = record.identify(paths)
    identified: list[Identified | Rejection] = []
    while unknown:
        read = identify_safely(surveyed.layout.images, in_batches(unknown), runner)
        for n_read, item in enumerate(read, 1):
            identified.append(item)
            if n_read % SCAN_BATCH == 0 or n_read == len(unknown):
                yield HeadersRead(n_read, len(unknown))
        unknown = record.find_neighbours(known, (item.study_id for item in identified))
    identified.extend(known)
    identified.sort(key=lambda item: item.path)
    return group_by_uid([*rejections, *identified])


def plan_tasks(
    groups: Groups,
    layout: Layout,
    tables: CsvTables,
    out: Path,
    config: PreprocessConfig,
    *,
    known: KnownRejections,
) -> list[SeriesTask]:
    """Return one task per series, in order."""
    types = tables.types or {}
    shared = groups.shared if layout.split is None else set()
    companions = {} if layout.split is None else find_companions(groups.files)
    return [
        SeriesTask(
            study_id=key[0],
            series_id=key[1],
            source=layout.images,
            files=tuple(sorted(files)),
            named=types.get(key),
            has_csv=tables.types is not None,
            cache=out,
            config=config,
            knows_left_out=key in known,
            by_folder=layout.split is not None,
            shares_uid=key in shared,
            companions=companions.get(key, ()),
        )
        for key, files in sorted(groups.files.items())
    ]


def _convert_changed(
    tasks: list[SeriesTask], runner: Runner, record: SourceRecord, out: Path
) -> Generator[Event, None, list[SeriesResult]]:
    """Convert the series that are not stored as they are; keep the record of their files."""
    by_key = {task.key: task for task in tasks}
    results: list[SeriesResult] = []
    changed: list[SeriesTask] = []
    for task in tasks:
        result = record.find_unchanged(task)
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
            record.add(by_key[result.key], result)
            if time.monotonic() >= due_s:
                record.write(out)
                due_s = time.monotonic() + RECORD_EVERY_S
            yield _finished_series(result)
    finally:
        with suppress(OSError):  # on a full disk; the record only saves time
            record.write(out)
    return results


def _planned(tasks: list[SeriesTask], before: set[Key]) -> Planned:
    n_stored = sum(task.key in before for task in tasks)
    return Planned(len(tasks), sum(len(task.files) for task in tasks), n_stored)


def _finished_series(result: SeriesResult) -> SeriesFinished:
    return SeriesFinished(*result.key, result.n_files, result.nbytes, result.cached, result.reason)


def _finished(
    written: WrittenTables, results: list[SeriesResult], before: set[Key], joins: tuple[Join, ...]
) -> Finished:
    stored = [result for result in results if result.reason is None]
    decoded = [result for result in stored if not result.cached]
    seen = {result.key for result in results}
    return Finished(
        n_series=written.series.height,
        n_reused=len(stored) - len(decoded),
        n_changed=sum(result.key in before for result in decoded),
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
