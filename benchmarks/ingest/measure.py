"""Contestants over one pool of processes, in turn; a run is timed from its first task to its last.

Processes have started, loaded their decoders and done one series before the clock starts, for
every contestant: a whole data set takes minutes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.files import SeriesFiles
from ingest.floor import FloorTask, read_and_decode
from ingest.peers import PEERS, PeerTask
from lumbar.cache.files.page_cache import forget_files
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.execution.isolate import convert_safely
from lumbar.pipeline.execution.runner import Runner
from lumbar.pipeline.execution.workers import worker_pool
from lumbar.pipeline.preprocess import plan_tasks
from lumbar.pipeline.source.group import group_by_folder
from lumbar.pipeline.source.layout import find_layout
from lumbar.pipeline.source.rsna_csv import CsvTables
from lumbar.pipeline.source.scan import walk

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class SeriesSet:
    """The series of one kind, where they lie, and the decoder of the floor."""

    root: Path
    series: Sequence[SeriesFiles]
    decoder: str

    @property
    def n_files(self) -> int:
        """Files of all series."""
        return sum(len(one.files) for one in self.series)


Convert = Callable[[SeriesSet, Path, Runner], None]


def run_floor(series_set: SeriesSet, _: Path, runner: Runner) -> None:
    """Read each file once and decode it."""
    tasks = [FloorTask(series, series_set.decoder) for series in series_set.series]
    _finish(runner.run(read_and_decode, tasks), series_set)


def run_lumbar(series_set: SeriesSet, out: Path, runner: Runner) -> None:
    """Scan, plan, and convert every series into a cache."""
    layout = find_layout(series_set.root, "train")
    groups = group_by_folder(walk(layout.images, out))
    config = PreprocessConfig()
    tasks = plan_tasks(groups, layout, CsvTables(), out, config, known={})
    for result in convert_safely(tasks, runner):
        if result.reason is not None:
            message = f"{result.series_id} was rejected: {result.reason}"
            raise RuntimeError(message)


def run_peer(name: str) -> Convert:
    """Return what runs a peer over all series."""

    def run(series_set: SeriesSet, out: Path, runner: Runner) -> None:
        tasks = [
            PeerTask(series.folder, out / f"{number}")
            for number, series in enumerate(series_set.series)
        ]
        _finish(runner.run(PEERS[name], tasks), series_set)

    return run


def _finish(done: Iterable[Any], series_set: SeriesSet) -> None:
    if sum(done) != series_set.n_files:
        message = "files were left out"
        raise RuntimeError(message)


def measure_rounds(
    series_sets: Sequence[SeriesSet],
    runs: dict[str, Convert],
    scratch: Path,
    *,
    workers: int,
    repeats: int,
    cold: bool = False,
) -> Iterator[tuple[SeriesSet, str, float]]:
    """Time each run over each set of series, ``repeats`` times; yield seconds.

    A round takes the contestants of one set in turn, before the next set; every other round goes
    backwards. With ``cold`` the files are out of the page cache at the start of each run.
    """
    with worker_pool(workers) as runner:
        for series_set in series_sets:
            few = SeriesSet(series_set.root, series_set.series[: 2 * workers], series_set.decoder)
            for run in runs.values():
                for _ in range(2):
                    _time(run, few, scratch, runner)
        for number in range(repeats):
            for series_set in series_sets:
                for name in list(runs) if number % 2 == 0 else list(reversed(runs)):
                    if cold:
                        os.sync()
                        forget_files(file.path for one in series_set.series for file in one.files)
                    yield series_set, name, _time(runs[name], series_set, scratch, runner)


def _time(run: Convert, series_set: SeriesSet, scratch: Path, runner: Runner) -> float:
    scratch.mkdir()
    started = time.perf_counter()
    run(series_set, scratch, runner)
    seconds = time.perf_counter() - started
    shutil.rmtree(scratch)
    return seconds


def peak_memory(series_sets: Sequence[SeriesSet], scratch: Path, *, workers: int) -> float:
    """Return the most resident memory in MB of a fresh worker over lumbar's runs."""
    with worker_pool(workers) as runner:
        for series_set in series_sets:
            _time(run_lumbar, series_set, scratch, runner)
        return max(runner.run(_peak, range(4 * workers)))


def _peak(_: Any) -> float:
    """Return this process's peak in MB; `getrusage` would count the parent's before the start."""
    time.sleep(0.02)  # so that every process gets some of these
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024 / MEGABYTE
