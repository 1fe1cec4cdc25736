"""What `reader.py` runs: the contest is set up, measured, shown and written."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from results import collect, parser, say

from contest.contest import Contest
from contest.contestants import CONTESTANTS, Contestant
from contest.fresh import ask
from contest.gpu import gpu_contest, gpu_rows
from contest.host import measure_gathering, measure_preparing
from contest.rounds import Entry, measure_rounds, nearly_best, standings, try_workers
from contest.rows import (
    contestant_rows,
    first_batch_rows,
    gathering_rows,
    host_rows,
    memory_rows,
    ratio_rows,
    waiting_rows,
)
from contest.waiting import measure_waiting
from lumbar.bench.loaders.dataloader import start_worker_server
from lumbar.bench.loaders.notebook_reader import NotebookReader
from lumbar.bench.measure.rows import ResultRow
from lumbar.bench.measure.window import MeasuredWindow
from lumbar.cache.files.page_cache import forget_files
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.preprocess import preprocess
from lumbar.synth.dataset import SynthConfig, write_dataset
from lumbar.train.telemetry.cpu import usable_cores
from lumbar.train.telemetry.hardware import describe_machine

STUDIES = 40
WORKERS = (0, 1, 2, 4)
MEMORY_BATCHES = 2000
PARTS = ("host", "waiting", "first_batch", "memory")
"""What is measured of lumbar's reader alone."""
TITLE = "The reader beside its peers"
MEASURED = (*(one.name for one in CONTESTANTS), *PARTS)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    made = parser("the reader beside its peers")
    made.add_argument("--cache", type=Path, help="what `lumbar preprocess` made; else generated")
    made.add_argument("--src", type=Path, help="the DICOM folder that the cache was made from")
    made.add_argument("--series", default="sagittal_t2", help="the series type")
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    made.add_argument("--seconds", type=float, default=4.0, help="length of a window")
    made.add_argument("--only", nargs="+", choices=MEASURED, default=MEASURED)
    return made.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show the table and write the files that were asked for."""
    options = parse_arguments(arguments)
    # Worker processes and fresh ones find the contestants by it.
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
    with opened_contest(options) as contest:
        if options.device == "cuda":
            series = SeriesType(options.series)
            found = gpu_rows(contest, series, seconds=options.seconds, repeats=options.repeats)
        else:
            found = cpu_rows(
                contest,
                options.only,
                seconds=options.seconds,
                repeats=options.repeats,
                counts=WORKERS,
            )
        collect(found, describe(contest, options), options, title=TITLE)


@contextmanager
def opened_contest(options: argparse.Namespace) -> Iterator[Contest]:
    """Give the contest over a named cache, or over one that is made and removed again."""
    with tempfile.TemporaryDirectory() as folder:
        src, root = options.src, options.cache
        series = SeriesType(options.series)
        if root is None:
            src, root = Path(folder, "dicoms"), Path(folder, "cache")
            say(f"generating {STUDIES} studies and their cache")
            config = SynthConfig(studies=STUDIES, seed=options.seed, series_types=(series,))
            for _ in write_dataset(src, config, workers=usable_cores()):
                pass
            for _ in preprocess(src, root, PreprocessConfig(), workers=usable_cores()):
                pass
        cache = Cache(root)
        rows = cache.rows_of(series)
        decode = None
        if src is not None:
            names = cache.series[rows].select("study_id", "series_id").rows()
            decode = NotebookReader.find(src, names)
        contest = Contest(root, rows, decode, seed=options.seed)
        # Whole batches only, so that all count the same.
        contest = contest.of_rows(rows[: len(rows) // contest.batch * contest.batch])
        yield gpu_contest(contest) if options.device == "cuda" else contest


def cpu_rows(
    contest: Contest,
    only: Sequence[str],
    *,
    seconds: float,
    repeats: int,
    counts: Sequence[int],
) -> Iterator[ResultRow]:
    """Measure the named contestants and parts on the CPU."""
    contestants = [one for one in CONTESTANTS if one.name in only and _can_run(one, contest)]
    windows = _measure_all(contest, contestants, counts, seconds=seconds, repeats=repeats)
    found = standings(windows)
    yield from ratio_rows(found)
    yield from contestant_rows(found)
    if "host" in only:
        say("the host's part of a step")
        yield from host_rows(measure_preparing(contest, repeats=repeats))
        yield from gathering_rows(*measure_gathering(contest, repeats=repeats))
    if "waiting" in only:
        say("waits behind a simulated step")
        yield from waiting_rows(measure_waiting(contest, seconds=seconds, repeats=repeats))
    if "first_batch" in only:
        say("first batches of fresh processes")
        answers = []
        for _ in range(repeats):
            forget_files(path for path in contest.root.rglob("*") if path.is_file())
            answers.append(ask(contest, "first_batch"))
        yield from first_batch_rows(answers)
    if "memory" in only:
        say(f"memory over {MEMORY_BATCHES} batches")
        answers = [ask(contest, "memory", str(MEMORY_BATCHES)) for _ in range(repeats)]
        yield from memory_rows(answers, MEMORY_BATCHES)


def _measure_all(
    contest: Contest,
    contestants: Sequence[Contestant],
    counts: Sequence[int],
    *,
    seconds: float,
    repeats: int,
) -> dict[Entry, list[MeasuredWindow]]:
    """Find the best numbers of workers by short windows, then measure these round by round."""
    if any(counts):
        start_worker_server([one.module for one in contestants])
    tried = {}
    for entry, speed in try_workers(contest, contestants, counts, seconds=seconds / 2):
        tried[entry] = speed
        say(f"{entry.contestant.name}, {entry.workers} workers: {speed:.1f} volumes/s")
    windows = defaultdict(list)
    best = nearly_best(tried)
    for entry, window in measure_rounds(contest, best, seconds=seconds, repeats=repeats):
        windows[entry].append(window)
        speed = window.volumes_per_second
        number = len(windows[entry])
        say(f"round {number}: {entry.contestant.name}, {speed:.1f} volumes/s")
    return windows


def _can_run(contestant: Contestant, contest: Contest) -> bool:
    """Return whether a contestant has its package and its files; say so where it has not."""
    if contestant.package is not None and find_spec(contestant.package) is None:
        say(f"{contestant.name} is left out: {contestant.package} is not installed")
        return False
    if contestant.kind == "dicom" and contest.decode is None:
        say(f"{contestant.name} is left out: no --src")
        return False
    return True


def describe(contest: Contest, options: argparse.Namespace) -> dict[str, Any]:
    """Return what is needed to read the numbers again; no path, no host."""
    has_gpu = options.device == "cuda" and torch.cuda.is_available()
    machine = describe_machine(torch.device("cuda" if has_gpu else "cpu"))
    packages = {one.package for one in CONTESTANTS if one.package} | {"pydicom"}
    machine["versions"] |= {name: version(name) for name in sorted(packages) if find_spec(name)}
    table = Cache(contest.root).series[contest.rows]
    named = [f"--seconds {options.seconds:g} --repeats {options.repeats} --seed {options.seed}"]
    named += ["--device cuda"] if options.device == "cuda" else []
    named += ["--cache CACHE"] if options.cache else []
    named += ["--src DICOMS"] if options.src else []
    named += ["--only", *options.only] if len(options.only) < len(MEASURED) else []
    crop = contest.crop
    return machine | {
        "gpu": machine["gpu"] or "not measured: no GPU",
        "command": " ".join(["python benchmarks/reader.py", *named]),
        "seed": options.seed,
        "repeats": options.repeats,
        "seconds": options.seconds,
        "data": "named cache" if options.cache else f"{STUDIES} generated studies",
        "volumes": len(contest.rows),
        "stored": f"{table['dtype'][0]}, {table['height'][0]} x {table['width'][0]}",
        "mean_slices": sum(table["depth"]) / len(table),
        "batch": f"{contest.batch} x {crop.slices} x {crop.height} x {crop.width}",
        "augment": {name: value for name, value in contest.augment.model_dump().items() if value},
    }
