"""The output of ``lumbar evaluate``: scores part by part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from lumbar.display.terminal import console, say, show_table

if TYPE_CHECKING:
    from lumbar.train.evaluation.bootstrap import Interval
    from lumbar.train.evaluation.evaluate import CellResult, Evaluation, ScoreComparison
    from lumbar.train.evaluation.metric import Score


STAND_IN = "*"
STAND_IN_NOTE = f"{STAND_IN} contains cells without a model, in which the training prior stands in"
"""Marks a number that contains cells of the training prior."""

TRAINING_PRIOR = "training prior"
BEST_CONSTANT = "best constant of these labels"


def show_scores(
    scores: Mapping[str, Score],
    *,
    title: str,
    by_prior: Mapping[str, Collection[str]] | None = None,
) -> None:
    """Show scores part by part, a row each; lower is better.

    ``by_prior`` names, by row, the parts that contain cells of the training prior, and the total if
    it does; these are marked.
    """
    marked = by_prior or {}
    table = Table(title=f"{escape(title)}: weighted log loss, lower is better")
    table.add_column()
    for part in next(iter(scores.values())).to_json():
        table.add_column(part.replace("_", " "), justify="right")
    for name, score in scores.items():
        parts = marked.get(name, ())
        table.add_row(
            name,
            *(
                "-" if value is None else f"{value:.4f}{STAND_IN * (part in parts)}"
                for part, value in score.to_json().items()
            ),
        )
    console.print(table)
    if any(marked.values()):
        say(STAND_IN_NOTE)


def interval_text(interval: Interval | None) -> str:
    """Return an interval as a person writes it."""
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def show_evaluation(evaluation: Evaluation, *, title: str) -> None:
    """Show a score beside its baselines, and the AUC of each condition."""
    prior = evaluation.training_prior
    show_scores(
        {
            "this": evaluation.score,
            **({} if prior is None else {TRAINING_PRIOR: prior}),
            BEST_CONSTANT: evaluation.best_constant,
            "uniform": evaluation.uniform,
        },
        title=f"{title}, {evaluation.n_studies} studies, {evaluation.n_cells} cells",
        by_prior={"this": evaluation.parts_by_prior},
    )
    if prior is None:
        say(f"{TRAINING_PRIOR}: not known, since these predictions tell no training studies")
    say(f"95 % interval of the total: {interval_text(evaluation.intervals['total'])}")
    _show_cells(evaluation)
    by_condition = _cells_by_condition(evaluation)
    aucs = ", ".join(
        f"{name.replace('_', ' ')} {_auc_text(auc, by_condition[name])}"
        for name, auc in evaluation.auc.items()
    )
    say(f"AUC of moderate or severe: {aucs}")


def _show_cells(evaluation: Evaluation) -> None:
    """Show the loss of every condition at every level, a baseline's in brackets.

    The baseline is the training prior, or the best constant where the first is not known. Below,
    a line for each condition with cells of the training prior.
    """
    by_condition = _cells_by_condition(evaluation)
    levels = list(dict.fromkeys(cell.level for cell in evaluation.cells))
    baseline = BEST_CONSTANT if evaluation.training_prior is None else TRAINING_PRIOR
    show_table(
        f"loss by condition and level (that of the {baseline})",
        ("", *(level.upper().replace("_", "/") for level in levels)),
        [(name.replace("_", " "), *map(_loss_text, cells)) for name, cells in by_condition.items()],
    )
    for name, cells in by_condition.items():
        by_prior, labelled = _counts(cells)
        if by_prior:
            where = "no model" if by_prior == labelled else f"{by_prior:,} of {labelled:,} cells"
            say(f"{STAND_IN} {name.replace('_', ' ')}: {where}, the training prior stands in")


def _cells_by_condition(evaluation: Evaluation) -> dict[str, list[CellResult]]:
    by_condition: dict[str, list[CellResult]] = {}
    for cell in evaluation.cells:
        by_condition.setdefault(cell.condition, []).append(cell)
    return by_condition


def _loss_text(cell: CellResult) -> str:
    if cell.loss is None:
        return "-"
    prior = cell.training_prior_loss
    baseline = cell.best_constant_loss if prior is None else prior
    return f"{cell.loss:.3f}{STAND_IN * bool(cell.by_prior)} ({baseline:.3f})"


def _auc_text(auc: float | None, cells: Sequence[CellResult]) -> str:
    by_prior, labelled = _counts(cells)
    if by_prior and by_prior == labelled:
        return "- (no model)"
    return "-" if auc is None else f"{auc:.3f}"


def _counts(cells: Sequence[CellResult]) -> tuple[int, int]:
    """Return how many labelled cells hold the training prior, and how many there are."""
    labelled = sum(count for cell in cells for count in cell.severities.values())
    return sum(cell.by_prior for cell in cells), labelled


def show_comparison(comparison: ScoreComparison, *, title: str) -> None:
    """Show the difference of two predictions part by part; below 0 the first is better."""
    rows = []
    for name, value in comparison.difference.items():
        text = None if value is None else f"{value:+.4f}"
        mark = STAND_IN * (name in comparison.parts_by_prior)
        part = f"{name.replace('_', ' ')}{mark}"
        rows.append((part, text, interval_text(comparison.intervals[name])))
    show_table(
        f"{title}, {comparison.n_studies} studies of both; below 0 the first is better",
        ("", "difference", "95 % interval"),
        rows,
    )
    if comparison.parts_by_prior:
        say(f"{STAND_IN} contains cells without a model of one or the other: its training prior")
