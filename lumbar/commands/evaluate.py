"""``lumbar evaluate``: the metric part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbar.commands.options import CacheOption, JsonOption, unclear
from lumbar.display.evaluate import show_evaluation
from lumbar.display.terminal import say_json


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Folder of a run.")] = None,
    cache: CacheOption = Path("cache"),
    submission: Annotated[Path | None, typer.Option(help="A submission.csv.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Its truth, in train.csv's form.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run's held-out studies, or any submission file, beside the baselines."""
    from lumbar.cache.store import Cache
    from lumbar.train.evaluate import evaluate_oof, evaluate_submission
    from lumbar.train.loop import OOF

    if run is not None and submission is None and labels is None:
        evaluation, title = evaluate_oof(run / OOF, Cache(cache)), str(run)
    elif run is None and submission is not None and labels is not None:
        evaluation, title = evaluate_submission(submission, labels), str(submission)
    else:
        given = {"RUN": run, "--submission": submission, "--labels": labels}.items()
        got = " and ".join(name for name, value in given if value) or "nothing"
        expected = "RUN alone, or --submission FILE with --labels train.csv"
        raise unclear(evaluate, got, expected)
    if as_json:
        say_json(evaluation.to_json())
    else:
        show_evaluation(evaluation, title=title)
