"""``lumbar convert``: write a cache in another profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lumbar.commands.options import CORES, CacheArgument, WorkersOption
from lumbar.display.merge import show_taken
from lumbar.display.terminal import say, say_next


def convert(
    cache: CacheArgument,
    out: Annotated[Path, typer.Option(help="Cache folder to make.")],
    profile: Annotated[
        Literal["fast", "archive"], typer.Option(help="Plain voxels to map, or compressed slices.")
    ],
    workers: WorkersOption = CORES,
) -> None:
    """Write a cache in another profile, without the DICOM files."""
    from lumbar.pipeline.maintenance.convert_profile import reprofile

    n_volumes = show_taken(reprofile(cache, out, profile, workers=workers), "convert")
    say(f"cache: {out}, {n_volumes:,} volumes")
    say_next("verify", out)
