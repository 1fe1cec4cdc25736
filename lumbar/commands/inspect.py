"""``lumbar inspect``: what a cache holds, and pictures of one series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lumbar.commands.options import CacheArgument, JsonOption, series_to_train, unclear
from lumbar.display.inspect import show_rejected, show_series, show_summary
from lumbar.display.terminal import say, say_error, say_json, say_next

if TYPE_CHECKING:
    from lumbar.cache.store import Cache
    from lumbar.inspect.selection import ExportFormat, Selection

SHEET = Path("sheet.png")
Several = list[str] | None
"""An option that may be given several times."""


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
        int | None, typer.Option(min=0, help="Seed of the samples of --augment; default the run's.")
    ] = None,
    flag: Annotated[Several, typer.Option(help="Series with this flag.")] = None,
    reason: Annotated[
        Several, typer.Option(help="Series with files rejected for this reason.")
    ] = None,
    series_type: Annotated[Several, typer.Option("--type", help="Series of this type.")] = None,
    severity: Annotated[Several, typer.Option(help="Series that show this severity.")] = None,
    study: Annotated[Several, typer.Option(help="Series of this study.")] = None,
    export_as: Annotated[
        Literal["csv", "parquet", "json"] | None,
        typer.Option("--export", help="Write the table of the series, filtered or all."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File to write: sheet.png, or series.csv for --export."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a cache holds, list or export series, or draw a sheet of one.

    Filters may be repeated: a series matches any value of each filter, and all filters given.
    """
    from lumbar.cache.files.writable import require_file_place
    from lumbar.cache.store import Cache, empty_cache
    from lumbar.inspect.contact_sheet import contact_sheet
    from lumbar.inspect.selection import Selection
    from lumbar.inspect.summary import summarise

    named = (series_type, flag, reason, severity, study)
    wanted = Selection(*(tuple(values or ()) for values in named))
    given = {"--config": config, "--set": overrides, "--seed": seed}.items()
    for_augment = [name for name, value in given if value is not None]
    if for_augment and not augment:
        got = f"{' and '.join(for_augment)} without --augment"
        raise unclear(inspect, got, "--augment with them, or neither")
    if augment and as_json:
        raise unclear(inspect, "--augment and --json", "one of them: a sheet, or JSON")
    if (wanted or export_as) and (augment or series is not None):
        got = "a filter or --export, and --series or --augment"
        raise unclear(inspect, got, "a list of series, or a sheet of one")
    opened = Cache(cache)
    sheet = out or SHEET
    if out is not None:
        require_file_place(out)
        out.parent.mkdir(parents=True, exist_ok=True)
    if augment:
        _draw_augmentations(opened, series, sheet, config=config, overrides=overrides, seed=seed)
        say(f"sheet: {sheet}")
    elif series is not None:
        contact_sheet(opened, opened.find_series(series), sheet)
        say(f"sheet: {sheet}")
    elif wanted or export_as:
        _list_series(opened, wanted, export_as, out, as_json=as_json)
    elif as_json:
        say_json(summarise(opened).to_json())
    else:
        show_summary(summarise(opened), cache)
        if opened.series.is_empty():
            say_error(str(empty_cache(opened)))
        elif kind := series_to_train(opened):
            say_next("train", "--series", kind, "--cache", cache)


def _list_series(
    cache: Cache,
    wanted: Selection,
    form: ExportFormat | None,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Export the selected series, print them as JSON, or show them as a table."""
    from lumbar.inspect.selection import all_series, export, rejected_of, select

    table = select(all_series(cache), wanted)
    if form is not None:
        path = out or Path(f"series.{form}")
        export(table, path, form)
        say(f"{table.height:,} series: {path}")
    elif as_json:
        say_json(table.to_dicts())
    else:
        show_series(table)
        if wanted.reasons:
            show_rejected(rejected_of(cache, wanted))


def _draw_augmentations(
    cache: Cache,
    series: str | None,
    out: Path,
    *,
    config: Path | None,
    overrides: list[str] | None,
    seed: int | None,
) -> None:
    """Draw the augmentations of a run's configuration on a series or the first one of a type."""
    from lumbar.cache.names import SeriesType
    from lumbar.inspect.augment_sheet import augment_sheet
    from lumbar.train.run.config import resolve_config

    name = series or SeriesType.SAGITTAL_T2
    by_type = name in list(SeriesType)
    row = cache.rows_of(SeriesType(name))[0] if by_type else cache.find_series(name)
    kind = SeriesType(cache.series["series_type"][row])
    run = resolve_config(kind, file=config, overrides=overrides or ())
    seed = run.seed if seed is None else seed
    augment_sheet(cache, row, out, crop=run.crop, augment=run.augment, seed=seed)
