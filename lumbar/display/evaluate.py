"""How ``lumbar evaluate`` looks: scores part by part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from lumbar.display.terminal import console

if TYPE_CHECKING:
    from lumbar.train.evaluate import Evaluation
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
    aucs = ", ".join(
        f"{name.replace('_', ' ')} {'-' if auc is None else f'{auc:.3f}'}"
        for name, auc in evaluation.auc.items()
    )
    console.print(f"AUC of moderate or severe: {aucs}", highlight=False)
