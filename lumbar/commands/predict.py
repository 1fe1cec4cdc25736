"""``lumbar predict``: DICOM or a cache in, ``submission.csv`` out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lumbar.commands.options import (
    CORES,
    DeviceOption,
    Part,
    ThreadsOption,
    WorkersOption,
    checked,
    unclear,
)
from lumbar.display.data import show_preprocess
from lumbar.display.predict import show_prediction
from lumbar.display.terminal import say


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
