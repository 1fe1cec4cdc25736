"""The terminal: lines, errors, logs, bars and tables."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from lumbar.cache.errors import LumbarError

console = Console()
errors = Console(stderr=True)

NOT_MEASURED = "not measured"


def say(text: str) -> None:
    """Print a line unchanged: no markup, and no line break in a long path."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_next(*words: object) -> None:
    """Name the command that usually comes next; words in capitals are for the person to fill in."""
    say(f"next: lumbar {shlex.join(map(str, words))}")


def say_json(value: object) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def say_error(text: str) -> None:
    """Print one line to standard error."""
    errors.print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)


def say_warning(text: str) -> None:
    """Print a conspicuous line to standard error."""
    errors.print(
        f"WARNING: {text}", style="bold yellow", markup=False, highlight=False, soft_wrap=True
    )


def show_logs(verbose: int) -> None:
    """Send logs to standard error: warnings, with 1 also information, with 2 all."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = RichHandler(console=errors, show_path=False)
    logging.basicConfig(format="%(message)s", handlers=[handler])
    logging.getLogger("lumbar").setLevel(level)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show a bar with count, rate, time spent, time left, and a note."""
    with Progress(
        SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as bar:
        try:
            yield bar
        except (LumbarError, OSError):
            bar.live.transient = True  # remove the bar: an error message follows
            raise


def show_table(title: str, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Show rows under a header, the first column left-aligned; None means not measured.

    Cells are printed without markup.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(NOT_MEASURED if value is None else escape(str(value)) for value in row))
    console.print(table)


def size_text(n_bytes: int) -> str:
    """Return a number of bytes with a unit, such as 2.5 GB."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
