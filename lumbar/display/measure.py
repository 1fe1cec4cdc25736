"""How ``lumbar bench`` looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.terminal import progress, say, show_table

if TYPE_CHECKING:
    from lumbar.train.bench.report import BenchReport
    from lumbar.train.bench.run import BenchEvent


def show_bench(events: Iterable[BenchEvent]) -> BenchReport:
    """Draw a benchmark's progress and its tables; return the report."""
    from lumbar.train.bench.report import BenchReport as Final

    report: Final | None = None
    with progress() as bar:
        task = bar.add_task("bench", total=None, rate="", note="")
        for event in events:
            if isinstance(event, Final):
                report = event
            else:
                bar.update(task, completed=event.done, total=event.total, note=event.doing)
    assert report is not None
    for ceiling in report.ceilings:
        rows = [
            (
                loader.label,
                f"{loader.volumes_per_second.value:,.1f}",
                f"{seen.volumes_per_second.value:,.1f}",
                f"{seen.wait_ms_p50.value:.1f} / {seen.wait_ms_p95.value:.1f}",
                f"{100 * seen.stall.value:.1f} %",
                f"{100 * seen.au.value:.1f} %",
                None if seen.gpu_percent is None else f"{seen.gpu_percent.value:.0f} %",
            )
            for loader in report.loaders
            for seen in loader.end_to_end
            if seen.ceiling is ceiling
        ]
        show_table(
            f"{ceiling.label}: volumes/s (ceiling {ceiling.volumes_per_second.value:,.1f})",
            ("loader", "alone", "end to end", "wait ms\np50 / p95", "stall", "AU", "GPU"),
            rows,
        )
    say("medians; the spread stands in bench.md and bench.json")
    for note in report.notes:
        say(f"- {note}")
    return report
