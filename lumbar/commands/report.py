"""``lumbar report``: a cache as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbar.commands.options import CacheArgument, series_to_train
from lumbar.display.report import show_report
from lumbar.display.terminal import say, say_next


def report(
    cache: CacheArgument = Path("cache"),
    out: Annotated[Path, typer.Option(dir_okay=False, help="HTML file to write.")] = Path(
        "report.html"
    ),
) -> None:
    """Write a page of all series: pictures, points, labels, filters, distributions."""
    from lumbar.cache.files.writable import require_file_place
    from lumbar.cache.store import Cache
    from lumbar.inspect.report.write import write_report

    require_file_place(out)
    opened = Cache(cache)
    out.parent.mkdir(parents=True, exist_ok=True)
    show_report(write_report(opened, out))
    say(f"report: {out}")
    if kind := series_to_train(opened):
        say_next("train", "--series", kind, "--cache", cache)
