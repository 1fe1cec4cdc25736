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

from ingest.files import Encoded, Series
from ingest.floor import FloorTask, read_and_decode
from ingest.peers import PEERS, PeerTask
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
class Field:
    """The series of one kind, where they lie, and the decoder of the floor."""

    root: Path
    series: Sequence[Series]
    decoder: str

    @property
    def n_files(self) -> int:
        """Files of all series."""
        return sum(len(one.files) for one in self.series)


Run = Callable[[Field, Path, Runner], None]


def run_floor(field: Field, _: Path, runner: Runner) -> None:
    """Read each file once and decode it."""
    tasks = [FloorTask(series, field.decoder) for series in field.series]
    _finish(runner.run(read_and_decode, tasks), field)


def run_lumbar(field: Field, out: Path, runner: Runner) -> None:
    """Scan, plan, and convert every series into a cache."""
    layout = find_layout(field.root, "train")
    groups = group_by_folder(walk(layout.images, out))
    config = PreprocessConfig()
    tasks = plan_tasks(groups, layout, CsvTables(), out, config, known={})
    for result in convert_safely(tasks, runner):
        if result.reason is not None:
            message = f"{result.series_id} was rejected: {result.reason}"
            raise RuntimeError(message)


def run_peer(name: str) -> Run:
    """Return what runs a peer over all series."""

    def run(field: Field, out: Path, runner: Runner) -> None:
        tasks = [
            PeerTask(series.folder, out / f"{number}") for number, series in enumerate(field.series)
        ]
        _finish(runner.run(PEERS[name], tasks), field)

    return run


def _finish(done: Iterable[Any], field: Field) -> None:
    if sum(done) != field.n_files:
        message = "files were left out"
        raise RuntimeError(message)


def measure_rounds(
    fields: Sequence[Field],
    runs: dict[str, Run],
    scratch: Path,
    *,
    workers: int,
    repeats: int,
    cold: bool = False,
) -> Iterator[tuple[Field, str, float]]:
    """Time each run over each field, ``repeats`` times; yield seconds. Every other round backwards.

    A round takes the contestants of one field in turn, before the next field. With ``cold`` the
    files are out of the page cache at the start of each run.
    """
    with worker_pool(workers) as runner:
        for field in fields:
            few = Field(field.root, field.series[: 2 * workers], field.decoder)
            for run in runs.values():
                for _ in range(2):
                    _time(run, few, scratch, runner)
        for number in range(repeats):
            for field in fields:
                for name in list(runs) if number % 2 == 0 else list(reversed(runs)):
                    if cold:
                        forget_files(field)
                    yield field, name, _time(runs[name], field, scratch, runner)


def _time(run: Run, field: Field, scratch: Path, runner: Runner) -> float:
    scratch.mkdir()
    started = time.perf_counter()
    run(field, scratch, runner)
    seconds = time.perf_counter() - started
    shutil.rmtree(scratch)
    return seconds


def forget_files(field: Field) -> None:
    """Ask the system to drop the files of a field from the page cache."""
    os.sync()
    for series in field.series:
        for file in series.files:
            _forget(file)


def _forget(file: Encoded) -> None:
    descriptor = os.open(file.path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def peak_memory(fields: Sequence[Field], scratch: Path, *, workers: int) -> float:
    """Return the most resident memory in MB of a fresh worker over lumbar's runs."""
    with worker_pool(workers) as runner:
        for field in fields:
            _time(run_lumbar, field, scratch, runner)
        return max(runner.run(_peak, range(4 * workers)))


def _peak(_: Any) -> float:
    """Return this process's peak in MB; `getrusage` would count the parent's before the start."""
    time.sleep(0.02)  # so that every process gets some of these
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024 / MEGABYTE
