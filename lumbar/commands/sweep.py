"""``lumbar sweep``: runs with different settings, to find the best held-out metric."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lumbar.cache.errors import InputError
from lumbar.commands.options import (
    CacheOption,
    DeviceOption,
    DrawOption,
    ThreadsOption,
    TierOption,
    threads_for,
    warn_of_idle_gpu,
)
from lumbar.display.sweep import show_sweep
from lumbar.display.terminal import say


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep.toml: what is searched, and how long.")],
    cache: CacheOption = Path("cache"),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the sweep; default sweeps/<the file's name>.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="LUMBAR_SWEEP_STORAGE",
            show_envvar=True,
            help="URL of a database that several machines share; default SQLite in the folder.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    tier: TierOption = "auto",
    draw: DrawOption = "auto",
) -> None:
    """Search the settings of a run; the same command resumes a sweep."""
    from lumbar.cache.store import Cache
    from lumbar.train.run.device import resolve_device
    from lumbar.train.sweep.config import read_sweep

    try:
        from lumbar.train.sweep.run import sweep as run_sweep
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise InputError(
            what="lumbar sweep needs a package that is not installed",
            where=error.name,
            got="no such package",
            expected="the extra sweep",
            cure="pip install 'lumbar[sweep]'",
        ) from error
    config = read_sweep(file)
    warn_of_idle_gpu(device)
    folder = out or Path("sweeps") / file.stem
    events = run_sweep(
        Cache(cache),
        config,
        folder,
        name=folder.name,
        device=resolve_device(device),
        threads=threads_for(threads, device),
        tier=tier,
        draw=draw,
        storage=storage,
    )
    finished = show_sweep(events)
    if finished.best is not None:
        say(f"best: trial {finished.best.number}, {finished.best.run}")
        best = shlex.quote(str(finished.best_config))
        say(f"train it again: lumbar train --series {config.series} --config {best}")
    say(f"sweep: {folder}")
