"""How ``lumbar blend`` looks: scores beside each other, and the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lumbar.display.evaluate import interval_text, show_scores
from lumbar.display.terminal import say, show_table

if TYPE_CHECKING:
    from lumbar.train.blend_fit import BlendFit


def show_blend(fit: BlendFit, names: Sequence[str]) -> None:
    """Show a blend beside its members and their mean, then its weights."""
    alone = {f"{name} alone": score for name, score in zip(names, fit.members, strict=True)}
    show_scores(
        {"blend, cross-fitted": fit.score, "plain mean": fit.mean} | alone,
        title=f"{fit.n_studies} held-out studies",
    )
    say(f"95 % interval of the blend's total: {interval_text(fit.intervals['total'])}")
    difference = interval_text(fit.against_best["total"])
    say(f"blend less {names[fit.best]}, the best alone: {difference}")
    rows = [
        (name, *(f"{weights[m]:.3f}" for weights in fit.weights.values()))
        for m, name in enumerate((*names, "prior"))
    ]
    show_table(f"weights, in {fit.space} space", ("", *fit.weights), rows)
