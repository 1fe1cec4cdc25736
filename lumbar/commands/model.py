"""``lumbar train``: from a cache to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbar.cache.names import SeriesType
from lumbar.commands.options import (
    CORES,
    CacheOption,
    DeviceOption,
    ThreadsOption,
    TierOption,
    unclear,
)
from lumbar.display.model import show_training
from lumbar.display.terminal import say


def train(
    series: Annotated[
        str | None, typer.Option(help="sagittal_t1, sagittal_t2 or axial_t2; not with --resume.")
    ] = None,
    cache: CacheOption = Path("cache"),
    config: Annotated[Path | None, typer.Option(help="A run.toml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, such as optim.lr=3e-4.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/<series>-<n>.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to go on with.")] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = CORES,
    tier: TierOption = "auto",
) -> None:
    """Train a model on one series type of a cache."""
    from lumbar.cache.store import Cache
    from lumbar.train.config import read_config, resolve_config, trained_type
    from lumbar.train.device import resolve_device
    from lumbar.train.loop import CONFIG
    from lumbar.train.loop import train as run_training

    if resume is not None and not (series or config or overrides or run):
        resolved, folder = read_config(resume / CONFIG), resume
    elif resume is None and series is not None:
        kind = trained_type(series)
        resolved = resolve_config(kind, file=config, overrides=overrides or ())
        folder = run or _next_run(Path("runs"), kind)
    else:
        got = "neither --series nor --resume" if resume is None else "--resume and more of a run"
        expected = "--series TYPE for a new run, or --resume RUN alone to go on with one"
        raise unclear(train, got, expected)
    events = run_training(
        Cache(cache),
        resolved,
        folder,
        device=resolve_device(device),
        threads=threads,
        tier=tier,
        resume=resume is not None,
    )
    show_training(events)
    say(f"run: {folder}")


def _next_run(runs: Path, series: SeriesType) -> Path:
    """Return the first folder ``runs/<series>-<n>`` that is not there."""
    number = 1
    while (runs / f"{series}-{number}").exists():
        number += 1
    return runs / f"{series}-{number}"
