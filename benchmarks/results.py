"""What the scripts share: the options of all, and where their results go."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lumbar.bench.measure.rows import ResultRow
from lumbar.bench.report.files import write_json
from lumbar.bench.report.page import Table
from lumbar.cache.files.atomic import write_atomically
from lumbar.display.terminal import show_table

HEADER = ("result", "median (least - greatest)", "target", "met")

_console = Console(stderr=True)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every script has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", type=Path, help="where the results go")
    made.add_argument("--markdown", type=Path, help="where the tables go")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--seed", type=int, default=0)
    return made


def collect(
    found: Iterable[ResultRow], context: dict[str, Any], options: argparse.Namespace, *, title: str
) -> None:
    """Write results as they come, so that a run that is stopped leaves them; show all of them."""
    rows: list[ResultRow] = []
    for one in found:
        rows.append(one)
        if options.json is not None:
            write_json({"context": context, "results": rows}, options.json)
        if options.markdown is not None:
            write_atomically(options.markdown, to_markdown(context, rows, title=title).encode())
    show_table(title, HEADER, list(map(cells, rows)))


def to_markdown(context: dict[str, Any], rows: Sequence[ResultRow], *, title: str) -> str:
    """Return the results as a page: those with a target first."""
    lines = [f"# {title}", "", *(f"- {key}: {_text(value)}" for key, value in context.items())]
    for heading, chosen in (
        ("Targets", [one for one in rows if one["target"] is not None]),
        ("All other numbers", [one for one in rows if one["target"] is None]),
    ):
        lines += [
            "",
            f"## {heading}",
            "",
            *Table(heading, HEADER, list(map(cells, chosen))).lines(),
        ]
    return "\n".join(lines) + "\n"


def cells(one: ResultRow) -> tuple[str, str, str, str]:
    """Return a result as the texts of a table: name, value, target, whether it is met."""
    more = ", ".join(
        f"{key} {one[key]}" for key in ("workers", "against", "batch") if one.get(key) is not None
    )
    name = f"{one['name']} ({more})" if more else one["name"]
    value = f"{one['value']:.4g} ({one['low']:.4g} - {one['high']:.4g}) {one['unit']}"
    if one["target"] is None:
        return name, value, "", ""
    return name, value, f"{one['wanted']} {one['target']:g}", "yes" if one["met"] else "no"


def say(text: str) -> None:
    """Say on standard error what is done."""
    _console.print(text, highlight=False)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    return str(value)
