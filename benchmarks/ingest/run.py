"""What `preprocess.py` runs: the files are written, everyone is measured, the rows are written."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from results import collect, parser, say

from ingest.files import KINDS, SeriesKind, write_deep, write_kind
from ingest.floor import fastest_decoder
from ingest.measure import (
    Convert,
    SeriesSet,
    measure_rounds,
    peak_memory,
    run_floor,
    run_lumbar,
    run_peer,
)
from ingest.peers import PEERS
from ingest.rows import (
    FLOOR,
    LUMBAR,
    decoder_rows,
    kind_rows,
    memory_row,
    scaling_rows,
)
from lumbar.bench.measure.rows import ResultRow
from lumbar.pipeline.config import PreprocessConfig
from lumbar.train.telemetry.cpu import usable_cores
from lumbar.train.telemetry.hardware import describe_machine

PARTS = ("floor", "peers", "cold", "scaling", "memory")
PEERS_ON = "rle_384"
"""The kind that the peers are measured on: most of them take too long for all."""
TITLE = "Preprocessing beside its peers"
PACKAGES = (
    "pydicom",
    "pylibjpeg-rle",
    "pylibjpeg-openjpeg",
    "imagecodecs",
    "dcm2niix",
    "SimpleITK",
    "monai",
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    made = parser("preprocessing beside its peers and the floor")
    made.add_argument("--workers", type=int, default=usable_cores())
    made.add_argument("--series", type=int, default=48, help="of each kind")
    made.add_argument("--peer-series", type=int, default=6, help="those that the peers get")
    names = [kind.name for kind in KINDS]
    made.add_argument("--kinds", nargs="+", choices=names, default=names)
    made.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    return made.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show the table and write the files that were asked for."""
    options = parse_arguments(arguments)
    # Worker processes find the contestants by it.
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="lumbar-preprocess-") as folder:
        collect(all_rows(options, Path(folder)), describe(options), options, title=TITLE)


def all_rows(options: argparse.Namespace, folder: Path) -> Iterator[ResultRow]:
    """Measure part after part."""
    scratch = folder / "out"
    series_sets: dict[SeriesKind, SeriesSet] = {}
    for kind in KINDS:
        if kind.name in options.kinds:
            say(f"writing {options.series} series of {kind.name}")
            series = write_kind(
                folder / kind.name, kind, n_series=options.series, seed=options.seed
            )
            decoder, times_ms = fastest_decoder(series[0])
            yield from decoder_rows(kind, times_ms)
            series_sets[kind] = SeriesSet(folder / kind.name, series, decoder)
    two: dict[str, Convert] = {FLOOR: run_floor, LUMBAR: run_lumbar}
    for part, cold in (("floor", False), ("cold", True)):
        if part in options.only:
            yield from _floor_rows(series_sets, two, scratch, options, cold=cold)
    if "peers" in options.only:
        yield from _peer_rows(series_sets, folder, scratch, options)
    if "scaling" in options.only:
        yield from _scaling_rows(series_sets, two, scratch, options)
    if "memory" in options.only:
        deep = write_deep(folder / "deep", seed=options.seed)
        some = [*series_sets.values(), SeriesSet(folder / "deep", [deep], "")]
        say(f"memory, with a series of {len(deep.files)} slices")
        peaks = [
            peak_memory(some, scratch, workers=options.workers) for _ in range(options.repeats)
        ]
        yield memory_row(peaks)


def _floor_rows(
    series_sets: dict[SeriesKind, SeriesSet],
    runs: dict[str, Convert],
    scratch: Path,
    options: argparse.Namespace,
    *,
    cold: bool,
) -> Iterator[ResultRow]:
    say("lumbar and the floor" + (", files out of the page cache" if cold else ""))
    for kind, series_set in series_sets.items():
        seconds = _measure([series_set], runs, scratch, options, cold=cold)
        yield from kind_rows(kind, seconds, series_set.n_files, cold=cold)


def _peer_rows(
    series_sets: dict[SeriesKind, SeriesSet],
    folder: Path,
    scratch: Path,
    options: argparse.Namespace,
) -> Iterator[ResultRow]:
    kind = next((kind for kind in series_sets if kind.name == PEERS_ON), next(iter(series_sets)))
    root = folder / "for_peers"
    series = write_kind(root, kind, n_series=options.peer_series, seed=options.seed)
    series_set = SeriesSet(root, series, series_sets[kind].decoder)
    runs: dict[str, Convert] = {LUMBAR: run_lumbar}
    runs |= {name: run_peer(name) for name in PEERS if name == "notebook" or _version(name)}
    left_out = sorted(PEERS.keys() - runs.keys())
    say("lumbar and its peers" + (f"; not installed: {left_out}" if left_out else ""))
    seconds = _measure([series_set], runs, scratch, options, cold=False)
    for one in kind_rows(kind, seconds, series_set.n_files, cold=False):
        yield one | {"name": f"peers/{one['name']}"}


def _scaling_rows(
    series_sets: dict[SeriesKind, SeriesSet],
    runs: dict[str, Convert],
    scratch: Path,
    options: argparse.Namespace,
) -> Iterator[ResultRow]:
    """Measure one worker and all of them in turn, so that both see the same machine."""
    say("scaling")
    series_set = next(iter(series_sets.values()))
    alone: dict[str, list[float]] = defaultdict(list)
    together: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeats):
        for workers, found in ((1, alone), (options.workers, together)):
            for _, name, taken in measure_rounds(
                [series_set], runs, scratch, workers=workers, repeats=1
            ):
                found[name].append(taken)
    yield from scaling_rows(alone, together, options.workers)


def _measure(
    series_sets: Sequence[SeriesSet],
    runs: dict[str, Convert],
    scratch: Path,
    options: argparse.Namespace,
    *,
    cold: bool,
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for series_set, name, taken in measure_rounds(
        series_sets, runs, scratch, workers=options.workers, repeats=options.repeats, cold=cold
    ):
        seconds[name].append(taken)
        say(f"  {series_set.root.name} {name}: {1000 * taken / series_set.n_files:.3f} ms a file")
    return seconds


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is needed to read the numbers again; no path, no host."""
    machine = describe_machine(torch.device("cpu"))
    machine["versions"] |= {name: _version(name) or "not installed" for name in PACKAGES}
    named = [f"--series {options.series} --peer-series {options.peer_series}"]
    named += [f"--repeats {options.repeats} --workers {options.workers} --seed {options.seed}"]
    named += ["--kinds", *options.kinds] if len(options.kinds) < len(KINDS) else []
    named += ["--only", *options.only] if len(options.only) < len(PARTS) else []
    return machine | {
        "gpu": "not used",
        "command": " ".join(["python benchmarks/preprocess.py", *named]),
        "seed": options.seed,
        "repeats": options.repeats,
        "workers": options.workers,
        "series_a_kind": options.series,
        "configuration": PreprocessConfig().model_dump(mode="json"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
