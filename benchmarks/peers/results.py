"""Where results go: JSON and a page, as often as they grow, and a table at the end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from peers.rows import Row, cells, to_markdown


def write_results(
    options: argparse.Namespace, context: dict[str, Any], rows: Sequence[Row], *, title: str
) -> None:
    """Write the files that ``--json`` and ``--markdown`` ask for."""
    if options.json is not None:
        text = json.dumps({"context": context, "results": rows}, indent=2, allow_nan=False)
        options.json.write_text(text + "\n")
    if options.markdown is not None:
        options.markdown.write_text(to_markdown(context, rows, title=title))


def show_results(rows: Sequence[Row]) -> None:
    """Show all results on the terminal, those with a target coloured."""
    table = Table("result", "median (least - greatest)", "target", "met")
    for one in rows:
        style = None if one["met"] is None else "green" if one["met"] else "red"
        table.add_row(*cells(one), style=style)
    Console().print(table)
