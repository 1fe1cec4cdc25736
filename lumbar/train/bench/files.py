"""A report's three files: ``bench.json``, ``bench.md`` and ``bench.png``."""

from __future__ import annotations

import json
from pathlib import Path

from lumbar.cache.tables import write_atomically
from lumbar.train.bench.picture import draw_bench
from lumbar.train.bench.report import BenchReport

JSON, MARKDOWN, PICTURE = "bench.json", "bench.md", "bench.png"


def write_report(report: BenchReport, folder: Path) -> None:
    """Write the three files into a folder, which is made if need be."""
    write_json(report, folder / JSON)
    write_atomically(folder / MARKDOWN, report.to_markdown().encode())
    draw_bench(report, folder / PICTURE)


def write_json(report: BenchReport, path: Path) -> None:
    """Write the results alone; the file's folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(report.to_json(), indent=2) + "\n").encode())
