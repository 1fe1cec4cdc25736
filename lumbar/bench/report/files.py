"""A report's three files: ``bench.json``, ``bench.md`` and ``bench.png``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumbar.bench.report.page import to_markdown
from lumbar.bench.report.plot import draw_bench
from lumbar.bench.report.report import BenchReport
from lumbar.bench.report.rows import to_json
from lumbar.cache.files.atomic import write_atomically

JSON, MARKDOWN, PICTURE = "bench.json", "bench.md", "bench.png"


def write_report(report: BenchReport, folder: Path) -> None:
    """Write the three files into a folder, which is made if need be."""
    write_json(to_json(report), folder / JSON)
    write_atomically(folder / MARKDOWN, to_markdown(report).encode())
    draw_bench(report, folder / PICTURE)


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Write results as JSON; the file's folder is made if need be.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())
