"""``lumbar train, evaluate, predict``: from a cache to a model, a score and a submission."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lumbar.cache.names import SeriesType
from lumbar.commands.options import (
    CORES,
    CacheOption,
    DeviceOption,
    JsonOption,
    Part,
    ThreadsOption,
    TierOption,
    WorkersOption,
    checked,
    unclear,
)
from lumbar.display.data import show_preprocess
from lumbar.display.model import show_evaluation, show_prediction, show_training
from lumbar.display.terminal import say, say_json


def train(
    series: Annotated[
        str | None, typer.Option(help="sagittal_t1, sagittal_t2 or axial_t2; not with --resume.")
    ] = None,
    cache: CacheOption = Path("cache"),
    config: Annotated[Path | None, typer.Option(help="A run.toml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, such as optim.lr=3e-4.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/<series>-<n>.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to go on with.")] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = CORES,
    tier: TierOption = "auto",
) -> None:
    """Train a model on one series type of a cache."""
    from lumbar.cache.store import Cache
    from lumbar.train.config import read_config, resolve_config, trained_type
    from lumbar.train.device import resolve_device
    from lumbar.train.loop import CONFIG
    from lumbar.train.loop import train as run_training

    if resume is not None and not (series or config or overrides or run):
        resolved, folder = read_config(resume / CONFIG), resume
    elif resume is None and series is not None:
        kind = trained_type(series)
        resolved = resolve_config(kind, file=config, overrides=overrides or ())
        folder = run or _next_run(Path("runs"), kind)
    else:
        got = "neither --series nor --resume" if resume is None else "--resume and more of a run"
        expected = "--series TYPE for a new run, or --resume RUN alone to go on with one"
        raise unclear(train, got, expected)
    events = run_training(
        Cache(cache),
        resolved,
        folder,
        device=resolve_device(device),
        threads=threads,
        tier=tier,
        resume=resume is not None,
    )
    show_training(events)
    say(f"run: {folder}")


def _next_run(runs: Path, series: SeriesType) -> Path:
    """Return the first folder ``runs/<series>-<n>`` that is not there."""
    number = 1
    while (runs / f"{series}-{number}").exists():
        number += 1
    return runs / f"{series}-{number}"


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


def predict(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or checkpoints.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The file to write.")] = Path(
        "submission.csv"
    ),
    src: Annotated[Path | None, typer.Option(help="DICOM files to predict.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Or a cache to predict.")] = None,
    split: Annotated[Part | None, typer.Option(help="Half of an RSNA folder.")] = None,
    workers: WorkersOption = CORES,
    device: DeviceOption = "auto",
    threads: ThreadsOption = CORES,
) -> None:
    """Predict every study with one run or several: DICOM or cache in, submission.csv out."""
    from lumbar.cache.store import Cache
    from lumbar.pipeline.config import PreprocessConfig
    from lumbar.pipeline.preprocess import preprocess as run_preprocess
    from lumbar.train.device import resolve_device
    from lumbar.train.predict import load_models
    from lumbar.train.predict import predict as run_prediction
    from lumbar.train.submission import write_submission

    if (src is None) == (cache is None):
        got = "neither --src nor --cache" if src is None else "both --src and --cache"
        raise unclear(predict, got, "DICOM files by --src, or a cache by --cache")
    models = load_models(runs)
    place = resolve_device(device)
    with tempfile.TemporaryDirectory(prefix="lumbar-predict-") as scratch:
        if src is not None:
            cache = Path(scratch) / "cache"
            config = checked(PreprocessConfig, models[0].preprocess)
            half = split or ("test" if (src / "test_images").is_dir() else None)
            events = run_preprocess(src, cache, config, workers=workers, split=half)
            show_preprocess(events)
        assert cache is not None
        predictions = show_prediction(
            run_prediction(Cache(cache), models, device=place, threads=threads)
        )
        write_submission(out, predictions.study_ids, predictions.probabilities)
    by_prior = int((predictions.models == 0).sum())
    say(
        f"submission: {out}, {len(predictions.study_ids)} studies, "
        f"{predictions.models.size} rows, the prior stands in for {by_prior}"
    )
