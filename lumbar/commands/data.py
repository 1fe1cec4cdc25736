"""``lumbar preprocess, verify, merge, convert, synth``: data sets and caches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lumbar.commands.options import CORES, CacheArgument, Part, WorkersOption, checked, unclear
from lumbar.display.data import (
    show_preprocess,
    show_problems,
    show_reasons,
    show_synth,
    show_taken,
    show_verification,
)
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
    check: Annotated[
        Literal["stat", "contents"],
        typer.Option(help="How unchanged files are told: by size and times, or read again."),
    ] = "stat",
    timeout: Annotated[float, typer.Option(help="Most seconds a series.")] = 600.0,
    shard: Annotated[
        str | None, typer.Option(help="i/n: this part of the studies alone, for `lumbar merge`.")
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
    say_next("verify", out)
    if strict and finished.rejected_by_reason:
        raise typer.Exit(REJECTIONS)


def verify(
    cache: CacheArgument = Path("cache"),
    repair: Annotated[
        bool, typer.Option("--repair", help="Make what is damaged again, from --src.")
    ] = False,
    src: Annotated[Path | None, typer.Option(help="The DICOM files, for --repair.")] = None,
    workers: WorkersOption = CORES,
) -> None:
    """Check every byte and row of a cache; exit with 1 if anything is wrong, or it is empty."""
    from lumbar.cache.store import Cache
    from lumbar.cache.verify import verify as run

    if repair != (src is not None):
        got = "--repair without --src" if repair else "--src without --repair"
        raise unclear(verify, got, "both or neither")
    if src is not None:
        _repair(cache, src, workers)
    if show_verification(run(cache)):
        raise typer.Exit(1)
    opened = Cache(cache)
    if opened.is_empty_shard:
        say("a shard without studies: the other shards have them all")
    elif opened.series.is_empty():
        from lumbar.cache.store import empty_cache

        raise empty_cache(opened)
    else:
        say_next("inspect", cache)


def _repair(cache: Path, src: Path, workers: int) -> None:
    """Show what is damaged, and make it again."""
    from lumbar.pipeline.maintenance.repair import find_problems, repair

    problems = find_problems(cache)
    show_problems(problems)
    if problems:
        finished = show_preprocess(repair(cache, src, problems, workers=workers))
        show_reasons(finished.rejected_by_reason, cache)


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Caches made with --shard, all of them.")],
    out: Annotated[Path, typer.Option(help="Cache folder to make.")],
) -> None:
    """Join the caches of all shards to the cache of a single run."""
    from lumbar.pipeline.maintenance.merge import merge as run

    n_volumes = show_taken(run(out, shards), "merge")
    say(f"cache: {out}, {n_volumes:,} volumes")
    say_next("verify", out)


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
