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
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.to_json(), indent=2) + "\n"
    write_atomically(folder / JSON, text.encode())
    write_atomically(folder / MARKDOWN, report.to_markdown().encode())
    draw_bench(report, folder / PICTURE)
