"""``lumbar preprocess, verify, inspect, synth``: data sets and caches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lumbar.commands.options import (
    CORES,
    CacheArgument,
    JsonOption,
    Part,
    WorkersOption,
    checked,
    unclear,
)
from lumbar.display.data import show_preprocess, show_summary, show_synth, show_verification
from lumbar.display.terminal import say, say_json

if TYPE_CHECKING:
    from lumbar.cache.store import Cache

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
        {"grid": grid, "size": size, "spacing_mm": spacing_mm, "dtype": dtype, "profile": profile},
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


def inspect(
    cache: CacheArgument = Path("cache"),
    series: Annotated[
        str | None,
        typer.Option(
            help="STUDY/SERIES, or a series id, to draw as a sheet; with --augment also a type, "
            "whose first series is drawn, sagittal_t2 if none is named."
        ),
    ] = None,
    augment: Annotated[
        bool, typer.Option("--augment", help="Draw the series with every augmentation.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="A run.toml, for --augment.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE, such as augment.blur_mm=2, for --augment."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the draws of --augment; default the run's.")
    ] = None,
    out: Annotated[Path, typer.Option(dir_okay=False, help="PNG to write.")] = Path("sheet.png"),
    as_json: JsonOption = False,
) -> None:
    """Show what a cache holds, or draw a sheet of one series: its slices, or its augmentations."""
    from lumbar.cache.contact_sheet import contact_sheet
    from lumbar.cache.store import Cache
    from lumbar.cache.summary import summarise

    given = {"--config": config, "--set": overrides, "--seed": seed}.items()
    for_augment = [name for name, value in given if value is not None]
    if for_augment and not augment:
        got = f"{' and '.join(for_augment)} without --augment"
        raise unclear(inspect, got, "--augment with them, or neither")
    if augment and as_json:
        raise unclear(inspect, "--augment and --json", "one of them: a sheet, or JSON")
    opened = Cache(cache)
    if augment:
        _draw_augmentations(opened, series, out, config=config, overrides=overrides, seed=seed)
        say(f"sheet: {out}")
    elif series is not None:
        contact_sheet(opened, opened.find_series(series), out)
        say(f"sheet: {out}")
    elif as_json:
        say_json(summarise(opened).to_json())
    else:
        show_summary(summarise(opened))


def _draw_augmentations(
    cache: Cache,
    series: str | None,
    out: Path,
    *,
    config: Path | None,
    overrides: list[str] | None,
    seed: int | None,
) -> None:
    """Draw the augmentations of a run's configuration on a series, or on the first of a type."""
    from lumbar.cache.names import SeriesType
    from lumbar.train.augment_sheet import augment_sheet
    from lumbar.train.config import resolve_config

    name = series or SeriesType.SAGITTAL_T2
    by_type = name in list(SeriesType)
    row = cache.rows_of(SeriesType(name))[0] if by_type else cache.find_series(name)
    kind = SeriesType(cache.series["series_type"][row])
    run = resolve_config(kind, file=config, overrides=overrides or ())
    drawn_with = run.seed if seed is None else seed
    augment_sheet(cache, row, out, crop=run.crop, augment=run.augment, seed=drawn_with)


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
