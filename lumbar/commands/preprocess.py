"""``lumbar preprocess``: DICOM files to a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lumbar.commands.options import CORES, Part, WorkersOption, checked
from lumbar.display.preprocess import show_preprocess, show_reasons
from lumbar.display.terminal import say, say_next

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
        float | None, typer.Option(help="Millimetres per pixel, with --grid spacing.")
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
    check: Annotated[
        Literal["stat", "contents"],
        typer.Option(help="Compare files with the last run by size and times, or read them again."),
    ] = "stat",
    timeout: Annotated[float, typer.Option(help="Most seconds per series.")] = 600.0,
    shard: Annotated[
        str | None, typer.Option(help="i/n: only this part of the studies, for `lumbar merge`.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="tcp://HOST:PORT of a Dask cluster that does the work.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Accept a changed configuration.")] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 3 if anything was rejected.")] = False,
) -> None:
    """Decode DICOM series into a cache of normalised volumes and tables."""
    from lumbar.pipeline.config import PreprocessConfig
    from lumbar.pipeline.preprocess import preprocess as run
    from lumbar.pipeline.reject import total_loss
    from lumbar.pipeline.source.shard import Shard

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
    events = run(
        src,
        out,
        config,
        workers=workers,
        split=split,
        overwrite=overwrite,
        check=check,
        timeout_s=timeout,
        shard=None if shard is None else Shard.parse(shard),
        scheduler=scheduler,
    )
    finished = show_preprocess(events)
    show_reasons(finished.rejected_by_reason, out)
    say(f"cache: {out}")
    if finished.is_total_loss:
        raise total_loss(src, finished.rejected_by_reason)
    if shard is None:
        say_next("verify", out)
    else:
        say_next("merge", "SHARDS", "--out", "cache")
    if strict and finished.rejected_by_reason:
        raise typer.Exit(REJECTIONS)
