"""``lumbar synth``: generate studies as DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbar.commands.options import CORES, WorkersOption, checked
from lumbar.display.synth import show_synth
from lumbar.display.terminal import say, say_next


def synth(
    out: Annotated[Path, typer.Option(help="Folder to write, which must be empty.")],
    studies: Annotated[int, typer.Option(min=0, help="Studies with labels.")] = 100,
    test_studies: Annotated[int, typer.Option(min=0, help="Studies to predict.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    max_matrix: Annotated[int, typer.Option(help="Most rows or columns of an image.")] = 512,
    workers: WorkersOption = CORES,
) -> None:
    """Write generated studies as real DICOM files in the shape of the RSNA 2024 data set."""
    from lumbar.synth.dataset import SynthConfig, write_dataset

    values = {"studies": studies, "test_studies": test_studies, "seed": seed}
    config = checked(SynthConfig, values | {"max_matrix": max_matrix})
    show_synth(write_dataset(out, config, workers=workers), studies + test_studies)
    say(f"data set: {out}")
    say_next("preprocess", "--src", out, "--out", "cache")
