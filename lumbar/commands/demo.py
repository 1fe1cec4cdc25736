"""``lumbar demo``; its steps are in `lumbar.demo`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lumbar.commands.options import (
    CORES,
    DeviceOption,
    ThreadsOption,
    WorkersOption,
    threads_for,
    warn_of_idle_gpu,
)
from lumbar.display.terminal import say_next


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder to work in; default a new temporary one, kept.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the generated studies and the run.")
    ] = 0,
    workers: WorkersOption = CORES,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Run all steps on generated studies, in a few minutes on two cores."""
    from lumbar.demo import Demo, run_demo

    warn_of_idle_gpu(device)
    run_demo(
        Demo(
            folder=out or Path(tempfile.mkdtemp(prefix="lumbar-demo-")),
            seed=seed,
            workers=workers,
            threads=threads_for(threads, device),
            device=device,
        )
    )
    say_next("preprocess", "--src", "DICOMS", "--out", "cache")
