"""DICOM and CSV files become a cache: `preprocess` reads as its steps and yields events."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.format import (
    COORDINATES_TABLE,
    LABELS_SCHEMA,
    LABELS_TABLE,
    REJECTED_SCHEMA,
    REJECTED_TABLE,
    SERIES_TABLE,
    is_safe_id,
)
from lumbar.cache.index import build_index, find_volumes
from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.lock import locked
from lumbar.cache.names import SeriesType
from lumbar.cache.tables import write_cache_file, write_table
from lumbar.cache.volumes import METADATA, read_attributes, volume_folder
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.events import Event, Finished, Planned, Scanned, SeriesFinished
from lumbar.pipeline.gpu import warn_without_gpu
from lumbar.pipeline.group import Groups, group_by_folder, group_by_uid, reject_missing
from lumbar.pipeline.layout import Layout, Split, find_layout
from lumbar.pipeline.open_cache import (
    Known,
    check_folder,
    known_rejections,
    open_cache,
    read_kept,
    tidy_volumes,
)
from lumbar.pipeline.points import PLACED, make_point_table
from lumbar.pipeline.reject import Rejection
from lumbar.pipeline.rsna import read_points, read_series_descriptions
from lumbar.pipeline.runner import Runner
from lumbar.pipeline.scan import find_study_folders, walk
from lumbar.pipeline.series import SeriesResult
from lumbar.pipeline.source import SeriesTask
from lumbar.pipeline.suspects import convert_safely, identify_safely
from lumbar.pipeline.workers import TIMEOUT_S, worker_pool

__all__ = ["PreprocessConfig", "preprocess"]

SCAN_BATCH = 256
"""Files a scan task, and between two `Scanned` events."""

Item = TypeVar("Item")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tables:
    """The source's CSV files, each None where there is none; labels are a finished table."""

    types: dict[tuple[str, str], SeriesType] | None
    labels: pl.DataFrame | None
    points: pl.DataFrame | None


def preprocess(
    src: Path,
    out: Path,
    config: PreprocessConfig,
    *,
    workers: int,
    split: Split | None = None,
    overwrite: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[Event]:
    """Make or bring up to date the cache ``out`` from the DICOM files below ``src``.

    ``workers=0`` works in this process. Worker processes also stand a decoder that crashes, or
    that takes longer than ``timeout_s`` for a series: it costs the guilty files alone.

    Stopped anywhere, even killed, a second run goes on and ends with the same bytes. Series that
    are gone from the source stay in the cache and are counted, as are labels and points whose CSV
    file is gone; ``overwrite`` starts from nothing and allows another configuration or split.

    Raises
    ------
    InputError, MissingError
        If the source, a CSV file or the output folder is not what it has to be, or the cache was
        made with another configuration or from another split.
    BusyError
        If another run holds the cache.
    LumbarError
        If the disk is full, the source goes away or worker processes cannot start.
    """
    if config.decode == "gpu":
        warn_without_gpu()
    layout = find_layout(src, split)
    tables = read_tables(layout)
    check_folder(out)
    _check_not_empty(layout, out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out), worker_pool(workers, timeout_s=timeout_s) as runner:
        settings = config.model_dump(mode="json")
        known = open_cache(out, settings, layout.split, overwrite=overwrite)
        tables = _keep_old(tables, out)
        groups = yield from _find_series(layout, out, runner)
        vanished = sorted(set(find_volumes(out)) - groups.files.keys())
        reject_missing(groups, tables.types or {}, vanished)
        tasks = plan_tasks(groups, layout, tables, out, config, known=known)
        yield _planned(tasks)
        results = yield from convert_all(tasks, runner)
        rejections = [*groups.rejections, *known_rejections(known, results, vanished)]
        yield _finish(
            out,
            settings,
            tables,
            results,
            rejections,
            n_vanished=len(vanished),
            split=layout.split,
            studies=_find_studies(groups, layout, tables, out),
        )


def read_tables(layout: Layout) -> Tables:
    """Read and check the CSV files that exist; raise `InputError` for the first that is wrong."""
    if layout.split is not None and layout.series_csv is None:
        _log.warning("no series descriptions CSV in %s: types come from the headers", layout.tables)
    if layout.split == "train" and layout.labels_csv is None:
        _log.warning("no labels CSV in %s: no study gets labels from it", layout.tables)
    return Tables(
        read_series_descriptions(layout.series_csv) if layout.series_csv else None,
        read_label_csv(layout.labels_csv) if layout.labels_csv else None,
        read_points(layout.coordinates_csv) if layout.coordinates_csv else None,
    )


def _keep_old(tables: Tables, out: Path) -> Tables:
    """Fill in labels and points of an earlier run where their CSV files are gone."""
    labels, points = tables.labels, tables.points
    if labels is None:
        labels = read_kept(out, LABELS_TABLE)
    if points is None:
        kept = read_kept(out, COORDINATES_TABLE)
        points = None if kept is None else kept.drop(PLACED)
    return replace(tables, labels=labels, points=points)


def _find_studies(groups: Groups, layout: Layout, tables: Tables, out: Path) -> set[str]:
    """Return the studies of the source, be all their files broken or absent."""
    if layout.split is None:
        return {study_id for study_id, _ in groups.files if is_safe_id(study_id)}
    named = {study_id for study_id, _ in tables.types or {}}
    return named.union(find_study_folders(layout.images, out.resolve()))


def _check_not_empty(layout: Layout, out: Path) -> None:
    if next(walk(layout.images, out.resolve()), None) is None:
        raise InputError(
            what="the source holds no file",
            where=layout.images,
            got="no file in it or in any folder below",
            expected="DICOM files",
            cure="check --src",
        )


def _find_series(layout: Layout, out: Path, runner: Runner) -> Generator[Event, None, Groups]:
    """Find all files and group them to series."""
    found: list[str | Rejection] = []
    for batch in _batches(walk(layout.images, out.resolve())):
        found.extend(batch)
        yield Scanned(len(found))
    if layout.split is not None:
        return group_by_folder(found)
    rejections = [item for item in found if isinstance(item, Rejection)]
    paths = [item for item in found if isinstance(item, str)]
    identified = list(identify_safely(layout.images, _batches(paths), runner))
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


def convert_all(
    tasks: Iterable[SeriesTask], runner: Runner
) -> Generator[Event, None, list[SeriesResult]]:
    """Convert all series; raise `LumbarError` where the cache or the source fails as a whole."""
    results = []
    for result in convert_safely(tasks, runner):
        results.append(result)
        yield _finished_series(result)
    return results


def _planned(tasks: list[SeriesTask]) -> Planned:
    stored = [
        task
        for task in tasks
        if (volume_folder(task.cache, task.study_id, task.series_id) / METADATA).exists()
    ]
    return Planned(len(tasks), sum(len(task.files) for task in tasks), len(stored))


def _finished_series(result: SeriesResult) -> SeriesFinished:
    return SeriesFinished(
        result.study_id,
        result.series_id,
        result.n_files,
        result.nbytes,
        result.cached,
        result.reason,
    )


def _finish(
    out: Path,
    settings: dict[str, object],
    tables: Tables,
    results: list[SeriesResult],
    rejections: list[Rejection],
    *,
    n_vanished: int,
    split: Split | None,
    studies: set[str],
) -> Finished:
    """Write the tables and, last, the description of the cache."""
    tidy_volumes(out)
    series = build_index(out)
    shapes = {
        (row["study_id"], row["series_id"]): (row["height"], row["width"])
        for row in series.iter_rows(named=True)
    }
    labels = pl.DataFrame(schema=LABELS_SCHEMA) if tables.labels is None else tables.labels
    points = make_point_table(
        tables.points, shapes, lambda *key: read_attributes(out, *key) if key in shapes else None
    )
    rejected = pl.DataFrame(
        [astuple(rejection) for rejection in sorted(set(rejections))],
        schema=REJECTED_SCHEMA,
        orient="row",
    )
    for name, table in (
        (SERIES_TABLE, series),
        (LABELS_TABLE, labels),
        (COORDINATES_TABLE, points),
        (REJECTED_TABLE, rejected),
    ):
        write_table(out, name, table)
    counts = {
        "series": series.height,
        "studies": series["study_id"].n_unique(),
        "labels": labels.height,
        "coordinates": points.height,
        "rejected": rejected.height,
    }
    write_cache_file(out, config=settings, counts=counts, split=split, studies=sorted(studies))
    if n_vanished:
        _log.warning("%d cached series are no longer in the source; they stay", n_vanished)
    return Finished(
        n_series=series.height,
        n_reused=sum(result.cached for result in results),
        n_rejected_series=sum(result.reason is not None for result in results),
        n_vanished=n_vanished,
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
