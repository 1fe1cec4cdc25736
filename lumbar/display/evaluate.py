"""How ``lumbar evaluate`` looks: scores part by part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from lumbar.display.terminal import console, say, show_table

if TYPE_CHECKING:
    from lumbar.train.bootstrap import Interval
    from lumbar.train.evaluate import Comparison, Evaluation
    from lumbar.train.metric import Score


def show_scores(scores: Mapping[str, Score], *, title: str) -> None:
    """Show scores part by part, a row each; lower is better."""
    table = Table(title=f"{escape(title)}: weighted log loss, lower is better")
    table.add_column()
    for part in ("spinal", "foraminal", "subarticular", "any severe spinal", "total"):
        table.add_column(part, justify="right")
    for name, score in scores.items():
        values = score.to_json().values()
        table.add_row(name, *("-" if v is None else f"{v:.4f}" for v in values))
    console.print(table)


def interval_text(interval: Interval | None) -> str:
    """Return an interval as a person writes it."""
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def show_evaluation(evaluation: Evaluation, *, title: str) -> None:
    """Show a score beside its baselines, and how well each condition is told apart."""
    show_scores(
        {
            "this": evaluation.score,
            "1/2/4-weighted prior": evaluation.prior,
            "uniform": evaluation.uniform,
        },
        title=f"{title}, {evaluation.n_studies} studies, {evaluation.n_cells} cells",
    )
    say(f"95 % interval of the total: {interval_text(evaluation.intervals['total'])}")
    _show_cells(evaluation)
    aucs = ", ".join(
        f"{name.replace('_', ' ')} {'-' if auc is None else f'{auc:.3f}'}"
        for name, auc in evaluation.auc.items()
    )
    say(f"AUC of moderate or severe: {aucs}")


def _show_cells(evaluation: Evaluation) -> None:
    """Show the loss of every condition at every level, the prior's in brackets."""
    levels = list(dict.fromkeys(cell.level for cell in evaluation.cells))
    by_condition: dict[str, list[str]] = {}
    for cell in evaluation.cells:
        text = "-" if cell.loss is None else f"{cell.loss:.3f} ({cell.prior_loss:.3f})"
        by_condition.setdefault(cell.condition.replace("_", " "), []).append(text)
    show_table(
        "loss by condition and level (the prior's)",
        ("", *(level.upper().replace("_", "/") for level in levels)),
        [(condition, *texts) for condition, texts in by_condition.items()],
    )


def show_comparison(comparison: Comparison, *, title: str) -> None:
    """Show the difference of two predictions part by part; below 0 the first is better."""
    rows = []
    for name, value in comparison.difference.items():
        text = None if value is None else f"{value:+.4f}"
        rows.append((name.replace("_", " "), text, interval_text(comparison.intervals[name])))
    show_table(
        f"{title}, {comparison.n_studies} studies of both; below 0 the first is better",
        ("", "difference", "95 % interval"),
        rows,
    )
