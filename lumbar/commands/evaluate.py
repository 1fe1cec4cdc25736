"""``lumbar evaluate``: the metric part by part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lumbar.commands.options import JsonOption, RunCacheOption, unclear
from lumbar.display.evaluate import show_comparison, show_evaluation
from lumbar.display.terminal import say, say_json, say_next

if TYPE_CHECKING:
    from lumbar.cache.store import Cache
    from lumbar.train.evaluation.predictions import Predictions

PARQUET = ".parquet"


def evaluate(
    predictions: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of runs, or files: submissions (CSV) or OOF (Parquet)."),
    ] = None,
    cache: RunCacheOption = None,
    submission: Annotated[Path | None, typer.Option(help="A submission.csv.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="The truth in train.csv's form, not that of the cache.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Runs or files to compare with; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for evaluation.json and pictures.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score held-out studies of runs, or any predictions, beside baselines of labels alone."""
    from lumbar.cache.files.writable import require_folder_place
    from lumbar.cache.label_csv import read_label_csv
    from lumbar.cache.store import Cache
    from lumbar.train.evaluation.evaluate import check_complete, compare
    from lumbar.train.evaluation.evaluate import evaluate as run_evaluation
    from lumbar.train.evaluation.plots import evaluation_json, write_evaluation
    from lumbar.train.run.cache import cache_of

    named = [*(predictions or []), *([submission] if submission else [])]
    if not named:
        raise unclear(evaluate, "nothing", "folders of runs, or files of predictions")
    if out is not None:
        require_folder_place(out)
    title = ", ".join(map(str, named))
    opened = None
    if labels is None or max(map(_count_runs, (named, against or []))) > 1:
        opened = Cache(cache_of([*named, *(against or [])], cache))
    if labels is not None:
        table = read_label_csv(labels)
    else:
        assert opened is not None
        table = opened.labels
    found = _read(named, opened)
    if labels is not None and _is_submission(named):
        check_complete(found, table, where=named[0])
    patients = None if opened is None else opened.patients
    evaluation = run_evaluation(found, table, where=title, patients=patients)
    comparison = None
    if against:
        other = _read(against, opened)
        of = ", ".join(map(str, against))
        comparison = compare(found, other, table, where=of, patients=patients)
    if out is not None:
        write_evaluation(out, evaluation, comparison)
    if as_json:
        say_json(evaluation_json(evaluation, comparison))
        return
    show_evaluation(evaluation, title=title)
    if comparison is not None:
        show_comparison(comparison, title=f"less {', '.join(map(str, against or []))}")
    if out is not None:
        say(f"evaluation: {out}")
    if models := _models(named):
        say_next("predict", *models, "--src", "DICOMS", "--split", "test")


def _models(named: list[Path]) -> list[str | Path]:
    """Return how `lumbar predict` is told the models of runs or of a blend; of files nothing."""
    from lumbar.train.ensemble.blend import BLEND_FILE
    from lumbar.train.run.folder import CONFIG

    if all((path / CONFIG).is_file() for path in named):
        return [*named]
    blends = [path / BLEND_FILE for path in named]
    return ["--blend", blends[0]] if len(blends) == 1 and blends[0].is_file() else []


def _count_runs(named: list[Path]) -> int:
    return sum(path.is_dir() for path in named)


def _is_submission(named: list[Path]) -> bool:
    """Tell whether it is one submission: that must have every labelled study."""
    return len(named) == 1 and not named[0].is_dir() and named[0].suffix != PARQUET


def _read(named: list[Path], cache: Cache | None) -> Predictions:
    """Read runs or files: several runs are combined, several files must not overlap."""
    from lumbar.train.evaluation.predictions import join
    from lumbar.train.evaluation.submission import read_submission

    folders = [path for path in named if path.is_dir()]
    if folders and len(folders) < len(named):
        raise unclear(evaluate, "folders and files", "runs, or files of predictions")
    if not folders:
        tables = [
            _read_parquet(path) if path.suffix == PARQUET else read_submission(path)
            for path in named
        ]
        return join(tables, named)
    from lumbar.train.inference.out_of_fold import join_runs
    from lumbar.train.run.predictions import read_run

    if len(named) == 1:
        return read_run(named[0])
    assert cache is not None, "several runs are combined by the series of their cache"
    return join_runs(named, cache)


def _read_parquet(path: Path) -> Predictions:
    """Read a table of predictions; that in a run's folder comes with the run's training prior."""
    from lumbar.train.evaluation.predictions import read_oof
    from lumbar.train.run.folder import OOF
    from lumbar.train.run.predictions import read_run

    return read_run(path.parent) if path.name == OOF else read_oof(path)
