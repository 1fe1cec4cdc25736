"""``lumbar bench``: measures whether data loading is the bottleneck."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbar.cache.errors import InputError
from lumbar.commands.options import (
    CORES,
    DeviceOption,
    DrawOption,
    ThreadsOption,
    TierOption,
    checked,
    threads_for,
    warn_of_idle_gpu,
)
from lumbar.display.bench import show_bench
from lumbar.display.preprocess import show_preprocess
from lumbar.display.synth import show_synth
from lumbar.display.terminal import say

if TYPE_CHECKING:
    from lumbar.bench.report.report import BenchReport
    from lumbar.bench.session import BenchConfig, BenchEvent
    from lumbar.train.run.config import RunConfig

GENERATED_STUDIES = 24


def bench(
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder that preprocess made; else cache/, else generated studies."),
    ] = None,
    series: Annotated[str, typer.Option(help="Series type to read.")] = "sagittal_t2",
    src: Annotated[
        Path | None, typer.Option(help="The cache's DICOM files, to decode on the fly.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A run.toml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, such as optim.batch=16.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for bench.json, bench.md and bench.png."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the results to this file.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="DataLoader workers to try, such as 0,2,4.")
    ] = None,
    tier: TierOption = "auto",
    draw: DrawOption = "auto",
    cold: Annotated[bool, typer.Option(help="Also with an empty page cache.")] = False,
    seconds: Annotated[float, typer.Option(help="Length of one window.")] = 0.5,
    repeats: Annotated[int, typer.Option(help="Windows a measurement.")] = 3,
    minutes: Annotated[float, typer.Option(help="What would not end in them is left out.")] = 2.0,
    step_ms: Annotated[
        float | None, typer.Option(help="Length of a simulated step; 0 for none.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Measure whether loading is the bottleneck, against the usual loaders."""
    started = time.perf_counter()
    values = {
        "seconds": seconds,
        "repeats": repeats,
        "step_ms": step_ms,
        "workers": _counts(workers),
        "tier": tier,
        "draw": draw,
        "cold": cold,
        "minutes": minutes,
    }
    # Wrong options are refused before anything is generated or measured.
    settings = _settings(series, config, overrides, values, device, threads)
    _make_folders(out, json_file)
    with _opened(cache, src, series) as data:
        _measure(data, settings, started, lambda report: _write(report, out, json_file))


@dataclass(frozen=True, slots=True)
class _Data:
    """What is measured on: a cache, and its DICOM files if there are any."""

    cache: Path
    src: Path | None


@dataclass(frozen=True, slots=True)
class _Settings:
    """What is measured, and how."""

    run: RunConfig
    bench: BenchConfig
    device: str
    threads: int


def _settings(
    series: str,
    config: Path | None,
    overrides: list[str] | None,
    values: dict[str, Any],
    device: str,
    threads: int | None,
) -> _Settings:
    from lumbar.bench.session import BenchConfig, check_samples
    from lumbar.train.run.config import resolve_config, trained_type
    from lumbar.train.run.device import resolve_device

    run = resolve_config(trained_type(series), file=config, overrides=overrides or ())
    check_samples(run)
    resolve_device(device)
    warn_of_idle_gpu(device)
    return _Settings(run, checked(BenchConfig, values), device, threads_for(threads, device))


def _make_folders(out: Path | None, json_file: Path | None) -> None:
    """Make the folders of the results; refuse a place that cannot be written."""
    from lumbar.cache.files.writable import require_file_place, require_folder_place

    if out is not None:
        require_folder_place(out)
    if json_file is not None:
        require_file_place(json_file)


def _measure(
    data: _Data, settings: _Settings, started: float, write: Callable[[BenchReport], None]
) -> None:
    """Measure, write and show: the results are on the disk before they are shown."""
    from lumbar.bench.loaders.notebook_reader import NotebookReader
    from lumbar.bench.run import run_bench
    from lumbar.cache.store import Cache
    from lumbar.train.run.device import resolve_device

    opened = Cache(data.cache)
    rows = opened.rows_of(settings.run.series_type)
    wanted = opened.series[rows].select("study_id", "series_id").rows()
    decode = None if data.src is None else NotebookReader.find(data.src, wanted)
    events = run_bench(
        opened,
        settings.run,
        settings.bench,
        device=resolve_device(settings.device),
        threads=settings.threads,
        dicom_decode=decode,
        started=started,
    )
    show_bench(_written(events, write))


def _written(
    events: Iterable[BenchEvent], write: Callable[[BenchReport], None]
) -> Iterator[BenchEvent]:
    from lumbar.bench.report.report import BenchReport

    for event in events:
        if isinstance(event, BenchReport):
            write(event)
        yield event


@contextmanager
def _opened(cache: Path | None, src: Path | None, series: str) -> Iterator[_Data]:
    """Give the named cache or ``cache/``; where neither is, one of generated studies."""
    if cache is None and not Path("cache").exists():
        if src is not None:
            raise InputError(
                what="DICOM files without their cache",
                where="--src",
                got=src,
                expected="also --cache, the folder that preprocess made of them",
                cure="run `lumbar preprocess` first, or leave --src out",
            )
        with TemporaryDirectory(prefix="lumbar-bench-") as folder:
            yield _generate(Path(folder), series)
        return
    root = cache or Path("cache")
    yield _Data(root, src)


def _generate(folder: Path, series: str) -> _Data:
    """Make studies of one series type and their cache."""
    from lumbar.pipeline.config import PreprocessConfig
    from lumbar.pipeline.preprocess import preprocess
    from lumbar.synth.dataset import SynthConfig, write_dataset
    from lumbar.train.run.config import trained_type

    say(f"no cache named and no cache/ here: {GENERATED_STUDIES} studies are generated")
    src, cache = folder / "dicoms", folder / "cache"
    synth = SynthConfig(studies=GENERATED_STUDIES, series_types=(trained_type(series),))
    show_synth(write_dataset(src, synth, workers=CORES), GENERATED_STUDIES)
    show_preprocess(preprocess(src, cache, PreprocessConfig(), workers=CORES))
    return _Data(cache, src)


def _write(report: BenchReport, out: Path | None, json_file: Path | None) -> None:
    from lumbar.bench.report.files import write_json, write_report
    from lumbar.bench.report.rows import to_json

    if out is not None:
        write_report(report, out)
    if json_file is not None:
        write_json(to_json(report), json_file)


def _counts(text: str | None) -> tuple[int, ...] | None:
    """Return numbers of workers from a text such as 0,2,4."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            what="numbers of workers",
            where="--workers",
            got=text,
            expected="whole numbers with commas, such as 0,2,4",
            cure="correct the option",
        ) from error
