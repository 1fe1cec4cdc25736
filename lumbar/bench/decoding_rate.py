"""How many files a second `preprocess` takes, measured on a part of a source.

The part goes through the code of a whole run, from the scan to the written volume; its series are
evenly spread over the source. What a long run spreads thin does not count: worker processes have
started and loaded their decoders before the clock does, and the tables are not written. Files come
from storage, for a whole source does not fit the page cache.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from lumbar.cache.errors import InputError
from lumbar.cache.files.page_cache import forget_files
from lumbar.cache.format import CACHE_FILE
from lumbar.cache.volumes import CHUNK, volume_folder
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.events import SeriesFinished
from lumbar.pipeline.execution.failures import plain_errors
from lumbar.pipeline.execution.isolate import convert_safely, identify_safely
from lumbar.pipeline.execution.runner import Runner
from lumbar.pipeline.execution.workers import IN_FLIGHT_PER_WORKER, worker_pool
from lumbar.pipeline.preprocess import plan_tasks
from lumbar.pipeline.series.task import SeriesTask
from lumbar.pipeline.source.group import Groups, group_by_folder, group_by_uid
from lumbar.pipeline.source.layout import Layout, Split, find_layout
from lumbar.pipeline.source.rsna_csv import CsvTables, read_series_descriptions
from lumbar.pipeline.source.scan import find_study_folders, walk
from lumbar.pipeline.survey import SCAN_BATCH

SCAN_SHARE = 1 / 3
"""Most of the time that goes to finding files; the rest is for converting series of them."""

WARM = "warm-"
"""Start of the names of the caches that the clock does not see."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class DecodingRate:
    """What was converted, and how long that took with its share of the scan.

    ``files`` were read, ``stored_bytes`` are the volumes that they became.
    """

    files: int
    seconds: float
    workers: int
    stored_bytes: int

    @property
    def files_per_second(self) -> float:
        """Files over seconds."""
        return self.files / self.seconds


def measure_files_per_second(
    src: Path,
    config: PreprocessConfig,
    *,
    workers: int,
    seconds: float = 5.0,
    split: Split | None = None,
) -> DecodingRate:
    """Preprocess a part of a source for about some seconds, into a folder that is removed.

    Start of the workers comes on top. ``workers=0`` works in this process.

    Raises
    ------
    InputError, MissingError
        If the source or its descriptions CSV is not what it has to be, if it holds no series, or
        if the system's folder for temporary files lies in it.
    LumbarError
        If the disk is full, the source goes away or a worker process dies.
    """
    layout = find_layout(src, split)
    types = read_series_descriptions(layout.series_csv) if layout.series_csv else None
    with TemporaryDirectory(prefix="lumbar-rate-") as folder, worker_pool(workers) as runner:
        cache = Path(folder).resolve()
        _check_outside(cache, src)
        _start(runner, workers)
        started = time.perf_counter()
        groups = _scan(layout, cache, runner, until=started + SCAN_SHARE * seconds)
        scan_seconds = time.perf_counter() - started
        tasks = plan_tasks(groups, layout, CsvTables(types, None, None), cache, config, known={})
        if not tasks:
            raise InputError(
                what="the source holds no series",
                where=layout.images,
                got="no DICOM file in its place" if layout.split else "no DICOM file",
                expected="the folder that a cache is made from",
                cure="check --src",
            )
        _warm_up(tasks[0], runner, workers)
        rate = _convert(evenly_spread(tasks), cache, runner, workers, seconds - scan_seconds)
        n_scanned = sum(map(len, groups.files.values()))
        return replace(rate, seconds=rate.seconds + scan_seconds * rate.files / n_scanned)


def evenly_spread(items: Sequence[Item]) -> list[Item]:
    """Order items so that the first few, however many, are evenly spread over the sequence.

    The order is that of the indices' bits, reversed (van der Corput's sequence).
    """
    width = max(1, (len(items) - 1).bit_length())
    order = sorted(range(len(items)), key=lambda index: f"{index:0{width}b}"[::-1])
    return [items[index] for index in order]


def _check_outside(cache: Path, src: Path) -> None:
    if cache.is_relative_to(src.resolve()):
        raise InputError(
            what="the source holds the system's folder for temporary files",
            where=cache.parent,
            got=f"--src {src}",
            expected="a place outside of the source to write to",
            cure="set TMPDIR to another folder",
        )


def _scan(layout: Layout, cache: Path, runner: Runner, *, until: float) -> Groups:
    """Find the files of some studies, one at least, and group them to series."""
    paths = _walk_studies(layout, cache, until=until)
    if layout.split is not None:
        return group_by_folder(paths)
    batches = _until(until, _forgotten_batches(layout.images, paths))
    return group_by_uid(identify_safely(layout.images, batches, runner))


def _walk_studies(layout: Layout, skip: Path, *, until: float) -> Iterator[str]:
    """Yield the paths of files, relative to the images, study by study in an even spread."""
    images = layout.images
    if layout.split is not None:
        folders = [images / study_id for study_id in find_study_folders(images, skip)]
    else:
        folders = _inner_folders(images)
    for folder in _until(until, evenly_spread(folders)):
        for path in walk(folder, skip):
            if isinstance(path, str):
                yield (folder / path).relative_to(images).as_posix()


def _inner_folders(root: Path) -> list[Path]:
    """Return the folders of a bare tree that may be studies; the tree itself if it holds files."""
    entries = sorted(root.iterdir())
    folders = [path for path in entries if path.is_dir() and not path.is_symlink()]
    if len(folders) < len(entries) or not folders:
        return [root]
    if len(folders) == 1:
        return _inner_folders(folders[0])
    return [folder for folder in folders if not (folder / CACHE_FILE).exists()]


def _convert(
    tasks: list[SeriesTask],
    cache: Path,
    runner: Runner,
    workers: int,
    seconds: float,
) -> DecodingRate:
    """Convert series, one at least, until the time is over."""
    files = stored_bytes = 0
    started = time.perf_counter()
    begun = _until(started + seconds, map(_forgotten, tasks))
    with plain_errors(cache):
        for event in convert_safely(begun, runner):
            assert isinstance(event, SeriesFinished)
            files += event.n_files
            if event.reason is None:
                folder = volume_folder(cache, event.study_id, event.series_id)
                stored_bytes += _remove_volume(folder)
    return DecodingRate(files, time.perf_counter() - started, workers, stored_bytes)


def _remove_volume(folder: Path) -> int:
    """Make room for the next volume; return the bytes of this one's voxels."""
    nbytes = (folder / CHUNK).stat().st_size
    shutil.rmtree(folder)
    return nbytes


def _until(deadline: float, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, one at least, until the time is over."""
    for item in items:
        yield item
        if time.perf_counter() >= deadline:
            return


def _forgotten(task: SeriesTask) -> SeriesTask:
    forget_files(task.source / path for path in task.files)
    return task


def _forgotten_batches(root: Path, paths: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(paths, SCAN_BATCH)):
        forget_files(root / path for path in batch)
        yield batch


def _start(runner: Runner, workers: int) -> None:
    """Wait until every worker has imported the pipeline."""
    seen: set[int] = set()
    while len(seen) < workers:
        found = runner.run(_process_id, range(_in_flight(workers)))
        seen.update(process_id for process_id in found if isinstance(process_id, int))


def _process_id(_: int) -> int:
    return os.getpid()


def _warm_up(task: SeriesTask, runner: Runner, workers: int) -> None:
    """Convert a series in each worker, into caches of their own: the first time loads decoders."""
    tasks = [replace(task, cache=task.cache / f"{WARM}{n}") for n in range(_in_flight(workers))]
    with plain_errors(task.cache):
        for _ in convert_safely(tasks, runner):
            pass


def _in_flight(workers: int) -> int:
    return max(1, workers * IN_FLIGHT_PER_WORKER)
