"""``lumbar inspect``: what a cache holds, and pictures of one series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lumbar.commands.options import CacheArgument, JsonOption, unclear
from lumbar.display.inspect import show_summary
from lumbar.display.terminal import say, say_json

if TYPE_CHECKING:
    from lumbar.cache.store import Cache


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
