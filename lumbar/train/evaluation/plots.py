"""Pictures of an evaluation: reliability diagrams and confusion tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lumbar.cache.files.atomic import save_figure, write_atomically
from lumbar.cache.names import CONDITION_GROUPS, CONDITIONS, SEVERITIES
from lumbar.train.evaluation.calibration import Confusion, Reliability
from lumbar.train.evaluation.evaluate import Evaluation, ScoreComparison

EVALUATION_FILE = "evaluation.json"
RELIABILITY_FILE = "reliability.png"
CONFUSION_FILE = "confusion.png"


def write_evaluation(
    folder: Path, evaluation: Evaluation, comparison: ScoreComparison | None = None
) -> None:
    """Write an evaluation's numbers and pictures, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = _titles(evaluation)
    draw_reliability(evaluation.reliability, folder / RELIABILITY_FILE, titles)
    draw_confusion(evaluation.confusion, folder / CONFUSION_FILE, titles)
    document = evaluation_json(evaluation, comparison)
    write_atomically(folder / EVALUATION_FILE, json.dumps(document, indent=2).encode() + b"\n")


def evaluation_json(evaluation: Evaluation, comparison: ScoreComparison | None) -> dict[str, Any]:
    """Return an evaluation, and a comparison if there is one, as plain types."""
    compared = {} if comparison is None else {"comparison": comparison.to_json()}
    return evaluation.to_json() | compared


def _titles(evaluation: Evaluation) -> dict[str, str]:
    """Return the title of each group; one without a model is marked and has nothing to draw."""
    titles = {}
    for group, conditions in CONDITION_GROUPS.items():
        names = {CONDITIONS[c] for c in conditions}
        of_group = [cell for cell in evaluation.cells if cell.condition in names]
        labelled = sum(count for cell in of_group for count in cell.severities.values())
        by_prior = sum(cell.by_prior for cell in of_group)
        titles[group] = group
        if by_prior:
            titles[group] += (
                ": no model" if by_prior == labelled else f", without {by_prior:,} by the prior"
            )
    return titles


def draw_reliability(reliability: Reliability, path: Path, titles: Mapping[str, str]) -> None:
    """Draw predicted against observed: a panel per group, a line per severity.

    ``titles`` are those of the groups. Below each panel are the cells of each bin. The figure
    belongs to no global state.
    """
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, len(reliability), sharex=True, height_ratios=(3, 1))
    for group, axes, counts in zip(reliability, above, below, strict=True):
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
        for severity, colour in zip(SEVERITIES, ("C0", "C1", "C3"), strict=True):
            bins = reliability[group][severity]
            predicted = [one.predicted for one in bins]
            axes.plot(
                predicted, [one.observed for one in bins], ".-", color=colour,
                label=severity.replace("_", "/"),
            )  # fmt: skip
            counts.plot(predicted, [one.cells for one in bins], ".-", color=colour, linewidth=0.9)
        axes.set(title=titles[group], xlim=(0, 1), ylim=(0, 1))
        counts.set(xlabel="probability")
        if any(reliability[group].values()):
            counts.set_yscale("log")
        axes.grid(alpha=0.3)
        counts.grid(alpha=0.3)
    above[0].set_ylabel("share of the labels' weight")
    below[0].set_ylabel("cells")
    above[0].legend(fontsize="small")
    save_figure(figure, path)


def draw_confusion(confusion: Confusion, path: Path, titles: Mapping[str, str]) -> None:
    """Draw true against most probable severity, a panel per group: cells, and shares of the row.

    ``titles`` are those of the groups.
    """
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    names = [severity.replace("_", "/") for severity in SEVERITIES]
    for axes, (group, counts) in zip(
        figure.subplots(1, len(confusion)), confusion.items(), strict=True
    ):
        table = np.array(counts)
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            axes.text(
                column, row, f"{table[row, column]:,}\n{100 * share:.0f} %", ha="center",
                va="center", color="white" if share > 0.5 else "black",
            )  # fmt: skip
        axes.set(title=titles[group], xlabel="most probable", ylabel="true")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
    save_figure(figure, path)
