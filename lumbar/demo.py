"""``lumbar demo``: the whole way on generated studies, from DICOM files to a scored submission."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lumbar.bench.loaders.notebook_reader import NotebookReader
from lumbar.bench.report.files import write_report
from lumbar.bench.run import run_bench
from lumbar.bench.session import BenchConfig
from lumbar.cache.errors import InputError
from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.names import GROUP_CELLS, SeriesType
from lumbar.cache.store import Cache
from lumbar.display.bench import show_bench
from lumbar.display.evaluate import TRAINING_PRIOR, show_evaluation
from lumbar.display.predict import show_prediction
from lumbar.display.preprocess import show_preprocess
from lumbar.display.synth import show_synth
from lumbar.display.terminal import console, show_table
from lumbar.display.train import show_training
from lumbar.inspect.contact_sheet import contact_sheet
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.preprocess import preprocess
from lumbar.pipeline.source.layout import Split
from lumbar.synth.dataset import SynthConfig, write_dataset
from lumbar.train.evaluation.evaluate import Evaluation, check_complete, evaluate
from lumbar.train.evaluation.predictions import Predictions
from lumbar.train.evaluation.submission import read_submission, write_submission
from lumbar.train.inference.predict import Ensemble, load_models, predict
from lumbar.train.plan.samples import Samples
from lumbar.train.run.config import RunConfig, resolve_config
from lumbar.train.run.device import resolve_device
from lumbar.train.run.predictions import read_run
from lumbar.train.trainer.loop import train
from lumbar.train.trainer.run_log import CURVES

SUBMISSION = "submission.csv"
STUDIES, TEST_STUDIES = 120, 30
MAX_MATRIX = 320
SETTINGS = (
    "crop.slices=8",
    "crop.height=160",
    "crop.width=64",
    "crop.pixel_mm=1.5",
    "augment.rotation_degrees=4",
    "augment.shift_mm=4",
    "model.stride=8",
    "model.hidden=64",
    "optim.batch=4",
    "optim.epochs=12",
    "optim.lr=1e-3",
)
"""A run that learns within two minutes on two cores: few slices, a narrow box around the canal."""


@dataclass(frozen=True, slots=True)
class Demo:
    """Where the demo works, and with what."""

    folder: Path
    seed: int
    workers: int
    threads: int
    device: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def dicoms(self) -> Path:
        """The generated data set."""
        return self.folder / "dicoms"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "runs" / "sagittal_t2"

    @contextmanager
    def station(self, name: str) -> Iterator[None]:
        """Head a station of the way and time it."""
        console.rule(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def run_demo(demo: Demo) -> None:
    """Go the whole way and show what came of it.

    Raises
    ------
    InputError
        If the folder is not empty.
    """
    if demo.folder.exists() and any(demo.folder.iterdir()):
        raise InputError(
            what="the demo's folder is not empty", where=demo.folder, expected="a new folder"
        )
    config = resolve_config(SeriesType.SAGITTAL_T2, overrides=(*SETTINGS, f"seed={demo.seed}"))
    with demo.station("synth: generated studies as DICOM files"):
        synth = SynthConfig(
            studies=STUDIES, test_studies=TEST_STUDIES, seed=demo.seed, max_matrix=MAX_MATRIX
        )
        events = write_dataset(demo.dicoms, synth, workers=demo.workers)
        show_synth(events, STUDIES + TEST_STUDIES)
    with demo.station("preprocess: DICOM files to a cache"):
        cache = _preprocess(demo, "train", demo.folder / "cache")
    with demo.station("train: sagittal T2, a fifth of the studies held out"):
        show_training(
            train(cache, config, demo.run, device=resolve_device(demo.device), threads=demo.threads)
        )
    with demo.station("evaluate: the held-out studies"):
        held_out = evaluate(read_run(demo.run), cache.labels, where=demo.run)
        show_evaluation(held_out, title="held-out studies")
    with demo.station("predict: test studies, DICOM files to submission.csv"):
        predicted = _predict(demo)
        solution = demo.dicoms / "test_solution.csv"
        labels = read_label_csv(solution)
        check_complete(predicted, labels, where=demo.folder / SUBMISSION)
        test = evaluate(predicted, labels, where=solution)
        show_evaluation(test, title="test studies")
    with demo.station("bench: is loading the bottleneck?"):
        _bench(demo, cache, config)
    sheet = _draw_sheet(demo, cache)
    _close(demo, held_out, test, (sheet, demo.run / CURVES, demo.folder / "bench.png"))


def _preprocess(demo: Demo, split: Split, out: Path) -> Cache:
    """Preprocess the studies of a split."""
    events = preprocess(demo.dicoms, out, PreprocessConfig(), workers=demo.workers, split=split)
    show_preprocess(events)
    return Cache(out)


def _predict(demo: Demo) -> Predictions:
    """Write the predictions of the test studies to a submission, and return them as read back."""
    cache = _preprocess(demo, "test", demo.folder / "test-cache")
    ensemble = Ensemble(load_models([demo.run]))
    events = predict(cache, ensemble, device=resolve_device(demo.device), threads=demo.threads)
    predictions = show_prediction(events).predictions
    submission = demo.folder / SUBMISSION
    write_submission(submission, predictions)
    written = read_submission(submission).of(predictions.study_ids)
    return replace(predictions, probabilities=written.probabilities)


def _bench(demo: Demo, cache: Cache, config: RunConfig) -> None:
    wanted = cache.series[cache.rows_of(config.series_type)].select("study_id", "series_id").rows()
    report = show_bench(
        run_bench(
            cache,
            config,
            BenchConfig(seconds=0.4, minutes=1.5),
            device=resolve_device(demo.device),
            threads=demo.threads,
            dicom_decode=NotebookReader.find(demo.dicoms, wanted, "train"),
        )
    )
    write_report(report, demo.folder)


def _draw_sheet(demo: Demo, cache: Cache) -> Path:
    """Draw the sagittal T2 series whose canal is narrowest."""
    path = demo.folder / "sheet.png"
    series = Samples.of_series(cache, cache.rows_of(SeriesType.SAGITTAL_T2))
    worst = series.severity[:, GROUP_CELLS["spinal"]].sum(axis=1).argmax()
    contact_sheet(cache, int(series.row[worst, 0]), path)
    return path


def _close(demo: Demo, held_out: Evaluation, test: Evaluation, pictures: tuple[Path, ...]) -> None:
    """Show the spinal part, which the demo trains, against its baselines, and where things are."""
    console.rule("what came of it")
    rows = []
    for name, evaluation in (("held-out studies", held_out), ("test studies", test)):
        assert evaluation.training_prior is not None
        model, prior = evaluation.score.spinal, evaluation.training_prior.spinal
        assert model is not None
        assert prior is not None
        rows.append(
            (
                name,
                evaluation.n_studies,
                f"{model:.3f}",
                f"{prior:.3f}",
                f"{evaluation.uniform.spinal:.3f}",
                f"{100 * (1 - model / prior):.0f} %",
            )
        )
    show_table(
        "spinal canal stenosis: weighted log loss, lower is better",
        ("", "studies", "model", TRAINING_PRIOR, "uniform", "below the prior"),
        rows,
    )
    taken = ", ".join(f"{name.split(':')[0]} {s:.0f} s" for name, s in demo.seconds.items())
    console.print(f"{sum(demo.seconds.values()):.0f} s: {taken}", highlight=False)
    console.print("pictures:", *map(str, pictures), sep="\n  ", highlight=False)
    console.print(
        f"submission: {demo.folder / SUBMISSION}\neverything: {demo.folder}", highlight=False
    )
