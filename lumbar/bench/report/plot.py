"""``bench.png``: volumes/s of every loader beside the ceiling, its waits, and a time line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lumbar.bench.measure.results import Ceiling, EndToEnd
from lumbar.bench.measure.spread import Spread
from lumbar.bench.report.report import BenchReport, LoaderResult
from lumbar.cache.files.atomic import save_figure

BAR = 0.27

LINES = {
    "cpu_percent": ("cores", "C0"),
    "gpu_percent": ("GPU: a kernel runs", "C2"),
    "sm_percent": ("GPU: multiprocessors", "C1"),
    "tensor_percent": ("GPU: tensor cores", "C3"),
    "dram_percent": ("GPU: memory bandwidth", "C4"),
}
"""The counters of the time line, with label and colour."""


def draw_bench(report: BenchReport, path: Path) -> None:
    """Draw one row of panels for each step, three bars per loader, and the time line below.

    The figure is not one of pyplot's, so there is nothing to close.
    """
    shown = [c for c in report.ceilings if _measured(report, c)] or list(report.ceilings[:1])
    rows = [1.2 + 0.5 * len(report.loaders)] * len(shown) + [3.0]
    figure = Figure(figsize=(14, 1.4 + sum(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), 2, height_ratios=rows)
    for number, ceiling in enumerate(shown):
        _draw_speed(figure.add_subplot(grid[number, 0]), report, ceiling)
        _draw_wait(figure.add_subplot(grid[number, 1]), report, ceiling)
    _draw_timeline(figure.add_subplot(grid[len(shown), :]), report)
    figure.suptitle(f"{report.context['cpu']}; GPU: {report.context['gpu'] or 'none'}", fontsize=9)
    save_figure(figure, path)


def _measured(report: BenchReport, ceiling: Ceiling) -> list[tuple[int, LoaderResult, EndToEnd]]:
    """Return the loaders that were measured with a step: place from the top, loader, numbers."""
    return [
        (place, loader, measured)
        for place, loader in enumerate(report.loaders)
        if (measured := loader.behind(ceiling)) is not None
    ]


def _draw_speed(axes: Any, report: BenchReport, ceiling: Ceiling) -> None:
    alone = [
        (place, loader.alone.volumes_per_second) for place, loader in enumerate(report.loaders)
    ]
    together = [(place, e.volumes_per_second) for place, _, e in _measured(report, ceiling)]
    limit = [(place, ceiling.volumes_per_second) for place, _ in alone]
    _draw_bars(axes, alone, -BAR, "C0", "loader alone")
    _draw_bars(axes, together, 0.0, "C1", "end to end")
    _draw_bars(axes, limit, BAR, "lightgrey", "ceiling: replayed batch")
    axes.set_yticks(range(len(alone)), [one.spec.label for one in report.loaders], fontsize=8)
    axes.set(title=ceiling.label, xlabel="volumes/s (line: least to greatest)")
    _finish(axes)


def _draw_wait(axes: Any, report: BenchReport, ceiling: Ceiling) -> None:
    measured = _measured(report, ceiling)
    _draw_bars(axes, [(p, e.wait_ms_p50) for p, _, e in measured], -BAR, "C2", "p50")
    _draw_bars(axes, [(p, e.wait_ms_p95) for p, _, e in measured], 0.0, "C3", "p95")
    _draw_bars(axes, [(p, e.wait_ms_p99) for p, _, e in measured], BAR, "C4", "p99")
    axes.set_yticks(
        [place for place, _, _ in measured],
        [f"stall {100 * e.stall.value:.0f} %\nAU {100 * e.au.value:.0f} %" for _, _, e in measured],
        fontsize=8,
    )
    axes.set(title="wait for the next batch", xlabel="ms")
    _finish(axes)


def _draw_timeline(axes: Any, report: BenchReport) -> None:
    """Draw the counters over time, with a mark where each measurement began."""
    for counter, (label, colour) in LINES.items():
        points = [
            (sample.seconds, getattr(sample, counter))
            for sample in report.timeline
            if getattr(sample, counter) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=0.9)
    end = report.timeline[-1].seconds if report.timeline else 0.0
    edges = [mark.seconds for mark in report.marks] + [end]
    for mark, (start, stop) in zip(report.marks, pairwise(edges), strict=True):
        axes.axvline(start, color="grey", linewidth=0.5)
        if stop - start > end / 60:
            axes.text(start, 102, mark.label, rotation=35, fontsize=6, clip_on=False)
    axes.set(ylim=(0, 100), xlabel="s", ylabel="utilisation, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def _draw_bars(
    axes: Any, bars: list[tuple[int, Spread]], shift: float, colour: str, label: str
) -> None:
    values = [spread.value for _, spread in bars]
    below = [max(spread.value - spread.low, 0.0) for _, spread in bars]
    above = [max(spread.high - spread.value, 0.0) for _, spread in bars]
    places = [place + shift for place, _ in bars]
    axes.barh(
        places, values, BAR, color=colour, label=label, xerr=[below, above],
        error_kw={"linewidth": 0.8, "ecolor": "black"},
    )  # fmt: skip


def _finish(axes: Any) -> None:
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
