"""``sweep.png``: how the sweep went, which keys matter, and where the good trials lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lumbar.cache.files.atomic import save_figure
from lumbar.train.sweep.config import Choices, Distribution, SweepConfig
from lumbar.train.sweep.events import TrialRow
from lumbar.train.sweep.text import text_of

MOST_AXES = 8
"""Parallel coordinates of more keys cannot be read: the most important are drawn."""


def draw_sweep(
    config: SweepConfig, rows: Sequence[TrialRow], importances: dict[str, float], path: Path
) -> None:
    """Draw a sweep as PNG. The figure belongs to no global state, so nothing is left open."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["history", "importances"], ["coordinates", "coordinates"]])
    _draw_history(panels["history"], rows)
    _draw_importances(panels["importances"], importances)
    keys = [*importances, *(key for key in config.search if key not in importances)][:MOST_AXES]
    _draw_coordinates(panels["coordinates"], config, rows, keys)
    save_figure(figure, path)


def _draw_history(axes: Axes, rows: Sequence[TrialRow]) -> None:
    """Draw every trial's score in the order they began, and the best so far."""
    for state, marker, colour in (("complete", "o", "C0"), ("pruned", "x", "grey")):
        points = [(r.number, r.score) for r in rows if r.state == state and r.score is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, color=colour, label=state)
    failed = [row.number for row in rows if row.state == "failed"]
    for number in failed:
        axes.axvline(
            number, color="C3", linewidth=0.8, label="failed" if number == failed[0] else None
        )
    best, lowest = [], math.inf
    for row in rows:
        if row.state == "complete" and row.score is not None:
            lowest = min(lowest, row.score)
            best.append((row.number, lowest))
    if best:
        axes.step(*zip(*best, strict=True), where="post", color="black", label="best so far")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    axes.set(title="held-out metric", xlabel="trial", ylabel="lower is better")
    axes.grid(alpha=0.3)


def _draw_importances(axes: Axes, importances: dict[str, float]) -> None:
    axes.set(title="what makes a trial good", xlabel="share")
    if not importances:
        axes.text(0.5, 0.5, "too few complete trials to say", ha="center", va="center")
        axes.set(yticks=[], xlim=(0, 1))
        return
    keys = list(reversed(importances))
    axes.barh(keys, [importances[key] for key in keys])
    axes.grid(alpha=0.3, axis="x")


def _draw_coordinates(
    axes: Axes, config: SweepConfig, rows: Sequence[TrialRow], keys: Sequence[str]
) -> None:
    """Draw a line a complete trial through its values, the better the darker, the best in red."""
    scored = [
        (row.score, row)
        for row in rows
        if row.state == "complete" and row.score is not None and row.params.keys() >= set(keys)
    ]
    scored.sort(key=lambda pair: pair[0], reverse=True)
    scores = [score for score, _ in scored]
    darkness = Normalize(min(scores, default=0), max(scores, default=1))
    for number, (score, row) in enumerate(scored, start=1):
        is_best = number == len(scored)
        heights = [_height(config.search[key], row.params[key]) for key in keys]
        colour = "C3" if is_best else str(0.1 + 0.75 * float(darkness(score)))
        axes.plot(heights, color=colour, linewidth=2 if is_best else 1, marker=".")
    for place, key in enumerate(keys):
        axes.axvline(place, color="grey", linewidth=0.8)
        for height, text in _ticks(config.search[key]):
            axes.text(place, height, f" {text}", fontsize="x-small", va="center")
    axes.set_xticks(range(len(keys)), keys)
    axes.set(title="complete trials (red: the best, dark: good)", yticks=[], ylim=(-0.06, 1.06))


def _height(distribution: Distribution, value: object) -> float:
    """Return where a value lies on its axis, 0 to 1."""
    if isinstance(distribution, Choices):
        return distribution.choices.index(value) / max(len(distribution.choices) - 1, 1)
    low, high = distribution.bounds
    assert isinstance(value, int | float), "ranges are of numbers"
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _ticks(distribution: Distribution) -> list[tuple[float, str]]:
    values = distribution.choices if isinstance(distribution, Choices) else distribution.bounds
    return [(_height(distribution, value), text_of(value)) for value in values]
