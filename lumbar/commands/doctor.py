"""``lumbar doctor``: check a machine before long runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbar.display.doctor import show_doctor
from lumbar.display.terminal import say_next


def doctor(
    cache: Annotated[
        Path | None, typer.Option(help="Also check a cache: its size against memory, and the disk.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", dir_okay=False, help="Also write the results to this file."),
    ] = None,
) -> None:
    """Check this machine: decoders, pixels, a training step, and its GPU. It needs no data.

    Exit status 1 if a check failed.
    """
    from lumbar.cache.files.writable import require_file_place
    from lumbar.doctor.checks import CHECKS, facts_about
    from lumbar.doctor.report import is_healthy, write_report
    from lumbar.doctor.run import run_checks

    if json_file is not None:
        require_file_place(json_file)
    rows = show_doctor(run_checks((*facts_about(cache), *CHECKS)))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_report(rows, json_file)
    if not is_healthy(rows):
        raise typer.Exit(1)
    say_next("bench")
