"""``lumbar preprocess, verify, synth``: data sets and caches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lumbar.commands.options import (
    CORES,
    CacheArgument,
    Part,
    WorkersOption,
    checked,
)
from lumbar.display.data import show_preprocess, show_synth, show_verification
from lumbar.display.terminal import say

REJECTIONS = 3
"""Exit status of ``--strict`` where anything was rejected."""


def preprocess(
    src: Annotated[Path, typer.Option(help="RSNA folder, its images, or any DICOM tree.")],
    out: Annotated[Path, typer.Option(help="Cache folder to make or bring up to date.")],
    grid: Annotated[
        Literal["fit", "spacing", "native"], typer.Option(help="How slices get one size.")
    ] = "fit",
    size: Annotated[int, typer.Option(help="Side of the canvas in pixels.")] = 384,
    spacing_mm: Annotated[
        float | None, typer.Option(help="Millimetres a pixel, with --grid spacing.")
    ] = None,
    dtype: Annotated[Literal["uint8", "int16"], typer.Option(help="Stored type.")] = "uint8",
    profile: Annotated[
        Literal["fast", "archive"], typer.Option(help="Plain voxels to map, or compressed slices.")
    ] = "fast",
    decode: Annotated[
        Literal["cpu", "gpu"], typer.Option(help="gpu: nvImageCodec, where there is CUDA.")
    ] = "cpu",
    max_pixels: Annotated[int, typer.Option(help="Most rows x columns x frames of a file.")] = (
        268_435_456
    ),
    split: Annotated[Part | None, typer.Option(help="Half of an RSNA folder.")] = None,
    workers: WorkersOption = CORES,
    overwrite: Annotated[bool, typer.Option(help="Accept a changed configuration.")] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 3 if anything was rejected.")] = False,
) -> None:
    """Decode DICOM series into a cache of normalised volumes and tables."""
    from lumbar.pipeline.config import PreprocessConfig
    from lumbar.pipeline.preprocess import preprocess as run

    config = checked(
        PreprocessConfig,
        {
            "grid": grid,
            "size": size,
            "spacing_mm": spacing_mm,
            "dtype": dtype,
            "profile": profile,
            "max_pixels": max_pixels,
            "decode": decode,
        },
    )
    events = run(src, out, config, workers=workers, split=split, overwrite=overwrite)
    finished = show_preprocess(events)
    say(f"cache: {out}")
    if strict and finished.rejected_by_reason:
        raise typer.Exit(REJECTIONS)


def verify(cache: CacheArgument = Path("cache")) -> None:
    """Check every chunk and row of a cache; exit with 1 if anything is wrong."""
    from lumbar.cache.verify import verify as run

    if show_verification(run(cache)):
        raise typer.Exit(1)


def synth(
    out: Annotated[Path, typer.Option(help="Folder to write, which must be empty.")],
    studies: Annotated[int, typer.Option(min=0, help="Studies with labels.")] = 100,
    test_studies: Annotated[int, typer.Option(min=0, help="Studies to predict.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    max_matrix: Annotated[int, typer.Option(help="Most rows or columns of an image.")] = 512,
    workers: WorkersOption = CORES,
) -> None:
    """Write generated studies as real DICOM files in the shape of the RSNA 2024 data set."""
    from lumbar.pipeline.synth.dataset import SynthConfig, write_dataset

    values = {"studies": studies, "test_studies": test_studies, "seed": seed}
    config = checked(SynthConfig, values | {"max_matrix": max_matrix})
    show_synth(write_dataset(out, config, workers=workers), studies + test_studies)
    say(f"data set: {out}")
