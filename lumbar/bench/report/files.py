"""A report's three files: ``bench.json``, ``bench.md`` and ``bench.png``."""

from __future__ import annotations

import json
from pathlib import Path

from lumbar.bench.report.page import to_markdown
from lumbar.bench.report.plot import draw_bench
from lumbar.bench.report.report import BenchReport
from lumbar.bench.report.rows import to_json
from lumbar.cache.files.atomic import write_atomically

JSON, MARKDOWN, PICTURE = "bench.json", "bench.md", "bench.png"


def write_report(report: BenchReport, folder: Path) -> None:
    """Write the three files into a folder, which is made if need be."""
    write_json(report, folder / JSON)
    write_atomically(folder / MARKDOWN, to_markdown(report).encode())
    draw_bench(report, folder / PICTURE)


def write_json(report: BenchReport, path: Path) -> None:
    """Write the results alone; the file's folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(report), indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())
