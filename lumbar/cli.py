"""The commands: ``lumbar --help``. Every command imports what it needs when it runs.

Exit status: 0 done, 1 our failure, 2 the caller's mistake, 3 rejections under ``--strict``.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.logging import RichHandler

from lumbar import __version__, display
from lumbar.cache.errors import BusyError, InputError, LumbarError, expected_value, from_system
from lumbar.cache.names import SeriesType

MISTAKE, REJECTIONS = 2, 3

_log = logging.getLogger("lumbar.cli")

app = typer.Typer(
    help="Lumbar-spine MRI from DICOM files to a trained CNN+LSTM and a submission.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Part = Literal["train", "test"]
Config = TypeVar("Config")

CacheOption = Annotated[Path, typer.Option("--cache", help="Folder that preprocess made.")]
CacheArgument = Annotated[Path, typer.Argument(help="Folder that preprocess made.")]
WorkersOption = Annotated[
    int, typer.Option(min=0, help="Worker processes; 0 works in this process.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads of the reader.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
CORES = os.cpu_count() or 1


def _show_version(wanted: bool) -> bool:
    if wanted:
        display.say(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _configure(
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more.")] = 0,
    version: Annotated[
        bool, typer.Option(is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Set up logging before any command."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = RichHandler(console=display.errors, show_path=False)
    logging.basicConfig(format="%(message)s", handlers=[handler])
    logging.getLogger("lumbar").setLevel(level)


@app.command()
def preprocess(
    src: Annotated[Path, typer.Option(help="RSNA folder, its images, or any DICOM tree.")],
    out: Annotated[Path, typer.Option(help="Cache folder to make or bring up to date.")],
    grid: Annotated[
        Literal["fit", "spacing", "native"], typer.Option(help="How slices get one size.")
    ] = "fit",
    size: Annotated[int, typer.Option(help="Side of the canvas in pixels.")] = 384,
    spacing_mm: Annotated[
        float | None, typer.Option(help="Millimetres a pixel, with --grid spacing.")
    ] = None,
    dtype: Annotated[Literal["uint8", "int16"], typer.Option(help="Stored type.")] = "uint8",
    split: Annotated[Part | None, typer.Option(help="Half of an RSNA folder.")] = None,
    workers: WorkersOption = CORES,
    overwrite: Annotated[bool, typer.Option(help="Accept a changed configuration.")] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 3 if anything was rejected.")] = False,
) -> None:
    """Decode DICOM series into a cache of normalised volumes and tables."""
    from lumbar.pipeline.config import PreprocessConfig
    from lumbar.pipeline.preprocess import preprocess as run

    config = _checked(
        PreprocessConfig, {"grid": grid, "size": size, "spacing_mm": spacing_mm, "dtype": dtype}
    )
    events = run(src, out, config, workers=workers, split=split, overwrite=overwrite)
    finished = display.show_preprocess(events)
    display.say(f"cache: {out}")
    if strict and finished.rejected_by_reason:
        raise typer.Exit(REJECTIONS)


@app.command()
def verify(cache: CacheArgument = Path("cache")) -> None:
    """Check every chunk and row of a cache; exit with 1 if anything is wrong."""
    from lumbar.cache.verify import verify as run

    if display.show_verification(run(cache)):
        raise typer.Exit(1)


@app.command()
def inspect(
    cache: CacheArgument = Path("cache"),
    series: Annotated[
        str | None, typer.Option(help="STUDY/SERIES, or a series id, to draw as a sheet.")
    ] = None,
    out: Annotated[Path, typer.Option(dir_okay=False, help="PNG to write.")] = Path("sheet.png"),
    as_json: JsonOption = False,
) -> None:
    """Show what a cache holds, or draw a contact sheet of one series."""
    from lumbar.cache.contact_sheet import contact_sheet
    from lumbar.cache.store import Cache
    from lumbar.cache.summary import summarise

    opened = Cache(cache)
    if series is not None:
        contact_sheet(opened, opened.find_series(series), out)
        display.say(f"sheet: {out}")
    elif as_json:
        display.say_json(summarise(opened).to_json())
    else:
        display.show_summary(summarise(opened))


@app.command()
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
        raise _unclear(train, got, expected)
    events = run_training(
        Cache(cache),
        resolved,
        folder,
        device=resolve_device(device),
        threads=threads,
        resume=resume is not None,
    )
    display.show_training(events)
    display.say(f"run: {folder}")


@app.command()
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
        raise _unclear(evaluate, got, expected)
    if as_json:
        display.say_json(evaluation.to_json())
    else:
        display.show_evaluation(evaluation, title=title)


@app.command()
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
        raise _unclear(predict, got, "DICOM files by --src, or a cache by --cache")
    models = load_models(runs)
    place = resolve_device(device)
    with tempfile.TemporaryDirectory(prefix="lumbar-predict-") as scratch:
        if src is not None:
            cache = Path(scratch) / "cache"
            config = _checked(PreprocessConfig, models[0].preprocess)
            half = split or ("test" if (src / "test_images").is_dir() else None)
            events = run_preprocess(src, cache, config, workers=workers, split=half)
            display.show_preprocess(events)
        assert cache is not None
        predictions = display.show_prediction(
            run_prediction(Cache(cache), models, device=place, threads=threads)
        )
        write_submission(out, predictions.study_ids, predictions.probabilities)
    by_prior = int((predictions.models == 0).sum())
    display.say(
        f"submission: {out}, {len(predictions.study_ids)} studies, "
        f"{predictions.models.size} rows, the prior stands in for {by_prior}"
    )


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder to write, which must be empty.")],
    studies: Annotated[int, typer.Option(min=0, help="Studies with labels.")] = 100,
    test_studies: Annotated[int, typer.Option(min=0, help="Studies to predict.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    max_matrix: Annotated[int, typer.Option(help="Most rows or columns of an image.")] = 512,
    workers: WorkersOption = CORES,
) -> None:
    """Write generated studies as real DICOM files in the shape of the RSNA 2024 data set."""
    from lumbar.pipeline.synth.dataset import SynthConfig, write_dataset

    values = {"studies": studies, "test_studies": test_studies, "seed": seed}
    config = _checked(SynthConfig, values | {"max_matrix": max_matrix})
    display.show_synth(write_dataset(out, config, workers=workers), studies + test_studies)
    display.say(f"data set: {out}")


@app.command()
def bench(
    cache: CacheOption = Path("cache"),
    series: Annotated[str, typer.Option(help="Series type to read.")] = "sagittal_t2",
    src: Annotated[
        Path | None, typer.Option(help="The cache's DICOM files, to decode on the fly.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A run.toml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, such as optim.batch=16.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for bench.json, bench.md and bench.png."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the results to this file.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length of one window.")] = 0.5,
    repeats: Annotated[int, typer.Option(min=1, help="Windows a measurement.")] = 3,
    step_ms: Annotated[
        float | None, typer.Option(help="Length of a simulated step; 0 for none.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = CORES,
) -> None:
    """Measure whether loading is the bottleneck, against the usual loaders."""
    from lumbar.cache.store import Cache
    from lumbar.pipeline.notebook_reader import NotebookReader
    from lumbar.train.bench.files import write_json, write_report
    from lumbar.train.bench.run import BenchConfig, run_bench
    from lumbar.train.config import resolve_config, trained_type
    from lumbar.train.device import resolve_device

    kind = trained_type(series)
    opened = Cache(cache)
    resolved = resolve_config(kind, file=config, overrides=overrides or ())
    wanted = opened.series[opened.rows_of(kind)].select("study_id", "series_id").rows()
    report = display.show_bench(
        run_bench(
            opened,
            resolved,
            _checked(BenchConfig, {"seconds": seconds, "repeats": repeats, "step_ms": step_ms}),
            device=resolve_device(device),
            threads=threads,
            dicom_decode=None if src is None else NotebookReader.find(src, wanted),
        )
    )
    if out is not None:
        write_report(report, out)
    if json_file is not None:
        write_json(report, json_file)


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder to work in; default a new temporary one, kept.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the studies and the run.")] = 0,
    workers: WorkersOption = CORES,
    device: DeviceOption = "auto",
    threads: ThreadsOption = CORES,
) -> None:
    """Go the whole way on generated studies, in a few minutes on two cores."""
    from lumbar.demo import Demo, run_demo

    run_demo(
        Demo(
            folder=out or Path(tempfile.mkdtemp(prefix="lumbar-demo-")),
            seed=seed,
            workers=workers,
            threads=threads,
            device=device,
        )
    )


def _checked(model: type[Config], values: dict[str, Any]) -> Config:
    """Build a configuration from options; raise `InputError` for the first that does not fit."""
    from pydantic import ValidationError

    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        # What is wrong with several values together has no place of its own.
        names = [str(part) for part in first["loc"][:1]] or [key for key in values if values[key]]
        raise InputError(
            what="value of an option" if first["loc"] else "options that do not fit together",
            where=", ".join("--" + name.replace("_", "-") for name in names),
            got=", ".join(str(values[name]) for name in names),
            expected=expected_value(first["msg"]),
            cure="see --help of the command",
        ) from error


def _unclear(command: Callable[..., None], got: str, expected: str) -> InputError:
    """Return the error of options that do not say what to do."""
    where = f"lumbar {command.__name__}"
    what = f"cannot tell what to {command.__name__}"
    return InputError(
        what=what, where=where, got=got, expected=expected, cure=f"see {where} --help"
    )


def _next_run(runs: Path, series: SeriesType) -> Path:
    """Return the first folder ``runs/<series>-<n>`` that is not there."""
    number = 1
    while (runs / f"{series}-{number}").exists():
        number += 1
    return runs / f"{series}-{number}"


def main() -> None:
    """Run the command line; turn what lumbar raises on purpose into one line and an exit status."""
    try:
        app(prog_name="lumbar")
    except (LumbarError, OSError) as error:
        told = error if isinstance(error, LumbarError) else from_system(error)
        display.say_error(str(told))
        _log.debug("the traceback", exc_info=error)
        sys.exit(MISTAKE if isinstance(told, InputError | OSError | ValueError | BusyError) else 1)


if __name__ == "__main__":
    main()
