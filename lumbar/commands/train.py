"""``lumbar train``: from a cache to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lumbar.cache.errors import InputError
from lumbar.commands.options import (
    DeviceOption,
    DrawOption,
    RunCacheOption,
    ThreadsOption,
    TierOption,
    threads_for,
    unclear,
    warn_of_idle_gpu,
)
from lumbar.display.terminal import say, say_next
from lumbar.display.train import show_dry_run, show_training


def train(
    series: Annotated[
        str | None,
        typer.Option(help="sagittal_t1, sagittal_t2, axial_t2 or study; not with --resume."),
    ] = None,
    cache: RunCacheOption = None,
    config: Annotated[Path | None, typer.Option(help="A run.toml.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE, such as optim.lr=3e-4; with --resume optim.epochs alone."
        ),
    ] = None,
    fold: Annotated[
        str | None, typer.Option(help="K/N: hold out fold K, from 0, of N; default 0/5.")
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="all, or N: train every fold, one after the other.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/<series>-<n>.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to resume.")] = None,
    profile: Annotated[
        int, typer.Option(min=0, help="Trace so many steps into the run's trace.json.")
    ] = 0,
    wandb: Annotated[
        str | None, typer.Option(help="Weights & Biases project to report to as well.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what the run would do and need; write nothing."),
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    tier: TierOption = "auto",
    draw: DrawOption = "auto",
) -> None:
    """Train a model on one series type of a cache, or on whole studies.

    Started by torchrun, its processes train one model, each on a GPU of its own.
    """
    from lumbar.cache.store import Cache
    from lumbar.train.run.cache import USUAL, recorded_cache
    from lumbar.train.run.config import resolve_config, resumed_config, trained_on
    from lumbar.train.run.device import resolve_device
    from lumbar.train.run.distributed import joined_ranks
    from lumbar.train.run.folder import CONFIG, is_of_folds
    from lumbar.train.trainer.cross_validation import train_folds
    from lumbar.train.trainer.dry_run import dry_run as run_dry
    from lumbar.train.trainer.loop import train as run_training
    from lumbar.train.trainer.weights_and_biases import recorded, run_name

    if resume is not None and not (series or config or run or fold or folds):
        resolved, folder = resumed_config(resume / CONFIG, overrides or ()), resume
        every_fold = is_of_folds(resume)
        cache = cache or recorded_cache(resume)
    elif resume is None and series is not None:
        kind = trained_on(series)
        chosen = [*(overrides or ()), *_split_settings(fold, folds)]
        resolved = resolve_config(kind, file=config, overrides=chosen)
        folder, every_fold = run or _next_run(Path("runs"), kind), folds is not None
    else:
        got = "neither --series nor --resume" if resume is None else "--resume and more of a run"
        expected = "--series TYPE for a new run, or --resume RUN, at most with --set optim.epochs=N"
        raise unclear(train, got, expected)
    if wandb is not None and every_fold:
        raise unclear(train, "--wandb with --folds", "--wandb with one fold, a run of its own")
    place = resolve_device(device)
    warn_of_idle_gpu(device)
    opened = Cache(cache or USUAL)
    if dry_run:
        if resume is not None:
            raise unclear(train, "--dry-run and --resume", "one of them")
        limits: dict[str, Any] = {"threads": threads_for(threads, device), "tier": tier}
        show_dry_run(run_dry(opened, resolved, device=place, draw=draw, **limits))
        return
    with joined_ranks(place) as ranks:
        (folder, *_) = ranks.gather(folder)
        options: dict[str, Any] = {
            "device": place,
            "threads": threads_for(threads, device),
            "tier": tier,
            "draw": draw,
            "resume": resume is not None,
            "ranks": ranks,
            "profiled_steps": profile,
        }
        if not ranks.is_first:
            for _ in (train_folds if every_fold else run_training)(
                opened, resolved, folder, **options
            ):
                pass
            return
        if every_fold:
            show_training(train_folds(opened, resolved, folder, **options))
        else:
            events = run_training(opened, resolved, folder, **options)
            if wandb is not None:
                events = recorded(events, resolved, project=wandb, name=run_name(folder))
            show_training(events)
    say(f"run: {folder}")
    say_next("evaluate", folder)


def _split_settings(fold: str | None, folds: str | None) -> list[str]:
    """Return the settings of ``--fold K/N`` or ``--folds all``."""
    if fold is not None and folds is not None:
        raise unclear(train, "--fold and --folds", "one of them")
    if folds is not None and folds != "all":
        if not folds.isdecimal():
            raise _not_folds(folds, where="--folds", expected="all, or a number such as 5")
        return [f"split.folds={folds}"]
    if fold is None:
        return []
    number, slash, total = fold.partition("/")
    if not (slash and number.isdecimal() and total.isdecimal()):
        raise _not_folds(fold, where="--fold", expected="K/N, such as 0/5")
    if int(number) >= int(total):
        counted = f"0/{total} to {int(total) - 1}/{total}: folds count from 0"
        raise _not_folds(fold, where="--fold", expected=counted)
    return [f"split.fold={int(number)}", f"split.folds={int(total)}"]


def _not_folds(got: str, *, where: str, expected: str) -> InputError:
    return InputError(
        what="value of an option",
        where=where,
        got=got,
        expected=expected,
        cure="correct the option",
    )


def _next_run(runs: Path, series: str) -> Path:
    """Return the first folder ``runs/<series>-<n>`` that is not there."""
    number = 1
    while (runs / f"{series}-{number}").exists():
        number += 1
    return runs / f"{series}-{number}"
