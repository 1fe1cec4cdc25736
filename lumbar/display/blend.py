"""The output of ``lumbar blend``: scores beside each other, and the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lumbar.display.evaluate import TRAINING_PRIOR, interval_text, show_scores
from lumbar.display.terminal import say, show_table

if TYPE_CHECKING:
    from lumbar.train.ensemble.fit import BlendFit


def show_blend(fit: BlendFit, names: Sequence[str]) -> None:
    """Show a blend beside its members, their mean and the training prior, then its weights."""
    alone = [f"{name} alone" for name in names]
    by_prior = fit.by_prior
    show_scores(
        {
            "blend, cross-fitted": fit.score,
            "plain mean": fit.mean,
            **dict(zip(alone, fit.members, strict=True)),
            f"{TRAINING_PRIOR} alone": fit.training_prior,
        },
        title=f"{fit.n_studies} held-out studies",
        by_prior={
            "blend, cross-fitted": by_prior.blend,
            "plain mean": by_prior.mean,
            **dict(zip(alone, by_prior.members, strict=True)),
        },
    )
    say(f"95 % interval of the blend's total: {interval_text(fit.intervals['total'])}")
    difference = interval_text(fit.against_best["total"])
    say(f"blend less {names[fit.best]}, the best alone: {difference}")
    rows = [
        (name, *(_weight(weights[m]) for weights in fit.weights.values()))
        for m, name in enumerate((*names, TRAINING_PRIOR))
    ]
    show_table(f"weights, in {fit.space} space", ("", *fit.weights), rows)


def _weight(value: float) -> str:
    """Write a weight; one that is small, and yet the only one of a cell, is not written as 0."""
    return "<0.001" if 0 < value < 0.001 else f"{value:.3f}"
