"""How ``lumbar bench`` looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.terminal import progress, say, show_table

if TYPE_CHECKING:
    from lumbar.bench.measure.results import Ceiling
    from lumbar.bench.report.report import BenchReport
    from lumbar.bench.session import BenchEvent


def show_bench(events: Iterable[BenchEvent]) -> BenchReport:
    """Draw a benchmark's progress, its tables and the verdict; return the report."""
    from lumbar.bench.report.page import tables
    from lumbar.bench.report.report import BenchReport as Final

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
        if any(loader.behind(ceiling) for loader in report.loaders):
            _show_step(report, ceiling)
    shown = {"What was tried", "With an empty page cache"}
    for table in tables(report):
        if table.title in shown:
            show_table(table.title, table.header, table.rows)
    say("medians; the spread and all other numbers go to bench.md and bench.json (--out)")
    for note in report.notes:
        say(f"- {note}")
    for verdict in report.verdicts:
        say(f"\n{verdict.label[0].upper()}{verdict.label[1:]}: {verdict.finding}")
        say(verdict.advice)
    return report


def _show_step(report: BenchReport, ceiling: Ceiling) -> None:
    rows = []
    for loader in report.loaders:
        seen = loader.behind(ceiling)
        if seen is not None:
            gpu = seen.usage.get("gpu_percent")
            rows.append(
                (
                    loader.spec.label + (", best" if loader.best else ""),
                    f"{loader.alone.volumes_per_second.value:,.1f}",
                    f"{seen.volumes_per_second.value:,.1f}",
                    f"{seen.wait_ms_p50.value:.1f} / {seen.wait_ms_p95.value:.1f}",
                    f"{100 * seen.stall.value:.1f} %",
                    f"{100 * seen.au.value:.1f} %",
                    None if gpu is None else f"{gpu.value:.0f} %",
                )
            )
    show_table(
        f"{ceiling.label}: volumes/s (ceiling {ceiling.volumes_per_second.value:,.1f})",
        ("loader", "alone", "end to end", "wait ms\np50 / p95", "stall", "AU", "GPU"),
        rows,
    )
