"""How the commands look on a terminal: progress, tables, colours. Of the command line alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from lumbar.cache.errors import LumbarError

if TYPE_CHECKING:
    from lumbar.cache.summary import Summary
    from lumbar.cache.verify import Checked, Problem
    from lumbar.pipeline.events import Event as PreprocessEvent
    from lumbar.pipeline.events import Finished
    from lumbar.pipeline.synth.dataset import StudyWritten
    from lumbar.train.bench.report import BenchReport
    from lumbar.train.bench.run import BenchEvent
    from lumbar.train.evaluate import Evaluation
    from lumbar.train.events import EpochFinished, RunFinished, StepFinished, TrainEvent
    from lumbar.train.metric import Score
    from lumbar.train.predict import BatchPredicted, Predictions

console = Console()
errors = Console(stderr=True)

NOT_MEASURED = "not measured"


def say(text: str) -> None:
    """Print a line as it is: brackets are no markup, and a long path is not broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_json(value: object) -> None:
    """Print a value as JSON, for machines."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def say_error(text: str) -> None:
    """Print one line to standard error."""
    errors.print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Draw a bar with count, rate, time spent and time left, and a note."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as bar:
        try:
            yield bar
        except (LumbarError, OSError):
            bar.live.transient = True  # the error says more than a bar that stands still
            raise


def show_synth(events: Iterable[StudyWritten], total: int) -> tuple[int, int]:
    """Draw the writing of a generated data set; return files and bytes."""
    n_files = n_bytes = 0
    with progress() as bar:
        task = bar.add_task("synth", total=total, rate="", note="")
        for event in events:
            n_files += event.n_files
            n_bytes += event.nbytes
            bar.update(task, advance=1, note=f"{n_files:,} files, {_size(n_bytes)}")
    return n_files, n_bytes


def show_preprocess(events: Iterable[PreprocessEvent]) -> Finished:
    """Draw a preprocess run and its table at the end."""
    from lumbar.pipeline import events as e

    finished: e.Finished | None = None
    n_bytes = 0
    with progress() as bar:
        task = bar.add_task("scan", total=None, rate="", note="")
        for event in events:
            match event:
                case e.Scanned(n_files):
                    bar.update(task, completed=n_files, note="files found")
                case e.Planned(n_series=n_series, n_files=n_files, n_reused=n_reused):
                    note = f"{n_series} series, {n_reused} known"
                    bar.reset(task, description="preprocess", total=n_files, rate="", note=note)
                case e.SeriesFinished():
                    n_bytes += event.nbytes
                    speed = bar.tasks[0].finished_speed or bar.tasks[0].speed or 0
                    bar.update(
                        task,
                        advance=event.n_files,
                        rate=f"{speed:,.0f} files/s",
                        note=f"{_size(n_bytes)} read",
                    )
                case e.Finished():
                    finished = event
    assert finished is not None
    _show_counts(finished)
    return finished


def _show_counts(finished: Finished) -> None:
    table = Table(title="preprocess", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("files", f"{finished.n_files:,}")
    table.add_row("series in the cache", f"{finished.n_series:,}")
    table.add_row("  unchanged from before", f"{finished.n_reused:,}")
    table.add_row("series left out", f"{finished.n_rejected_series:,}")
    if finished.n_vanished:
        table.add_row("series no longer in the source", f"{finished.n_vanished:,}")
    for reason, count in finished.rejected_by_reason.items():
        table.add_row(f"  rejected: {reason}", f"{count:,}")
    for flag, count in finished.flags.items():
        table.add_row(f"  flag: {flag}", f"{count:,}")
    console.print(table)


def show_verification(events: Iterable[Checked | Problem]) -> int:
    """Draw a verification and show what it found; return the number of problems."""
    from lumbar.cache.verify import Checked, Problem

    problems: list[Problem] = []
    n_checked = n_bytes = 0
    with progress() as bar:
        task = bar.add_task("verify", total=None, rate="", note="")
        for event in events:
            match event:
                case Checked(nbytes=nbytes):
                    n_checked += 1
                    n_bytes += nbytes
                    bar.update(task, completed=n_checked)
                case Problem():
                    problems.append(event)
    for problem in problems:
        console.print(
            f"[red]{escape(problem.what)}[/]: "
            + escape(f"{problem.where}: {problem.detail}; {problem.cure}"),
            highlight=False,
            soft_wrap=True,
        )
    verdict = f"[red]{len(problems)} problems[/]" if problems else "[green]no problem[/]"
    console.print(f"{n_checked:,} items checked, {_size(n_bytes)} read: {verdict}")
    return len(problems)


def show_summary(summary: Summary) -> None:
    """Show what a cache holds."""
    say(
        f"cache format {summary.format_version}, written by lumbar {summary.lumbar_version}, "
        f"configuration {summary.config_hash}: {summary.n_studies:,} studies, "
        f"{summary.n_series:,} series, {_size(summary.nbytes)}"
    )
    types = Table(title="series")
    for name in (
        "type",
        "studies",
        "series",
        "files",
        "slices",
        "mm a pixel",
        "mm a slice",
        "size",
    ):
        first = name == "type"
        types.add_column(name, justify="left" if first else "right", no_wrap=first)
    for kind, entry in summary.types.items():
        types.add_row(
            kind,
            f"{entry.n_studies:,}",
            f"{entry.n_series:,}",
            f"{entry.n_files:,}",
            f"{entry.depth.minimum:.0f} / {entry.depth.median:.0f} / {entry.depth.maximum:.0f}",
            f"{entry.spacing_w_mm.median:.2f}",
            f"{entry.spacing_d_mm.median:.2f}",
            _size(entry.nbytes),
        )
    console.print(types)
    grades = Table(title=f"labels of {summary.n_labelled_studies:,} studies")
    for name in ("condition", "normal/mild", "moderate", "severe", "unknown", "points"):
        first = name == "condition"
        grades.add_column(name, justify="left" if first else "right", no_wrap=first)
    for condition, counts in summary.severities.items():
        points = summary.points.get(condition, 0)
        grades.add_row(condition, *(f"{n:,}" for n in counts.values()), f"{points:,}")
    console.print(grades)
    for title, counts in (("flags", summary.flags), ("rejected", summary.rejected)):
        if counts:
            listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            console.print(f"{title}: {listed}", highlight=False)


def show_training(events: Iterable[TrainEvent]) -> RunFinished:
    """Draw a training run: a bar an epoch, a line of metrics after each."""
    from lumbar.train import events as e

    finished: e.RunFinished | None = None
    with progress() as bar:
        task = bar.add_task("train", total=None, rate="", note="")
        epochs = 0
        for event in events:
            match event:
                case e.RunStarted():
                    epochs = event.epochs
                    bar.console.print(
                        f"{event.train_series} series to train on, {event.valid_series} held out, "
                        f"{event.parameters / 1e6:.1f} M parameters on {event.device} -> "
                        f"{event.run}",
                        markup=False,
                        highlight=False,
                        soft_wrap=True,
                    )
                    if event.first_epoch:
                        bar.console.print(_resumed(event.first_epoch, epochs), highlight=False)
                    bar.update(task, total=event.steps)
                case e.StepFinished(epoch=epoch, step=step):
                    bar.update(
                        task,
                        description=f"epoch {epoch + 1}/{epochs}",
                        completed=step + 1,
                        rate=f"{event.samples / event.seconds:.1f} samples/s",
                        note=_step_note(event),
                    )
                case e.EpochFinished():
                    bar.console.print(_epoch_line(event, epochs), highlight=False, soft_wrap=True)
                case e.RunFinished():
                    finished = event
    assert finished is not None
    show_scores(
        {f"best epoch ({finished.best.epoch + 1})": finished.best.score, "prior": finished.prior},
        title="held-out studies",
    )
    return finished


def _resumed(done: int, epochs: int) -> str:
    if done < epochs:
        return f"resumed after epoch {done} of {epochs}"
    return f"the run is finished: all {epochs} epochs are done, there is nothing left to train"


def _step_note(event: StepFinished) -> str:
    parts = []
    if event.loss is not None:
        parts.append(f"loss {event.loss:.3f}")
    if event.wait_seconds is not None:
        parts.append(f"data wait {100 * event.wait_seconds / event.seconds:.0f} %")
    return ", ".join(parts)


def _epoch_line(event: EpochFinished, epochs: int) -> str:
    gpu = NOT_MEASURED if event.gpu_percent is None else f"{event.gpu_percent:.0f} %"
    parts = ", ".join(
        f"{name.split('_', maxsplit=1)[0]} {value:.3f}"
        for name, value in event.score.to_json().items()
        if value is not None
    )
    best = " [green]best[/]" if event.is_best else ""
    return (
        f"epoch {event.epoch + 1}/{epochs}: loss {event.train_loss:.3f}, held out "
        f"{event.valid_loss:.3f}; {parts}; {event.samples_per_second:.1f} samples/s, "
        f"data wait {100 * event.data_wait:.1f} %, GPU {gpu}{best}"
    )


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


def show_prediction(events: Iterable[BatchPredicted | Predictions]) -> Predictions:
    """Draw a prediction; return what was predicted."""
    from lumbar.train.predict import Predictions as Final

    with progress() as bar:
        task = bar.add_task("predict", total=None, rate="", note="")
        for event in events:
            if isinstance(event, Final):
                return event
            bar.update(task, completed=event.done, total=event.total)
    message = "a prediction ends with its result"
    raise AssertionError(message)


def show_bench(events: Iterable[BenchEvent]) -> BenchReport:
    """Draw a benchmark's progress and its tables; return the report."""
    from lumbar.train.bench.report import BenchReport as Final

    report: Final | None = None
    with progress() as bar:
        task = bar.add_task("bench", total=None, rate="", note="")
        for event in events:
            if isinstance(event, Final):
                report = event
            else:
                bar.update(task, completed=event.done, total=event.total, note=event.doing)
    assert report is not None
    for ceiling in report.ceilings:
        rows = [
            (
                loader.label,
                f"{loader.volumes_per_second.value:,.1f}",
                f"{seen.volumes_per_second.value:,.1f}",
                f"{seen.wait_ms_p50.value:.1f} / {seen.wait_ms_p95.value:.1f}",
                f"{100 * seen.stall.value:.1f} %",
                f"{100 * seen.au.value:.1f} %",
                None if seen.gpu_percent is None else f"{seen.gpu_percent.value:.0f} %",
            )
            for loader in report.loaders
            for seen in loader.end_to_end
            if seen.ceiling is ceiling
        ]
        show_table(
            f"{ceiling.label}: volumes/s (ceiling {ceiling.volumes_per_second.value:,.1f})",
            ("loader", "alone", "end to end", "wait ms\np50 / p95", "stall", "AU", "GPU"),
            rows,
        )
    say("medians; the spread stands in bench.md and bench.json")
    for note in report.notes:
        say(f"- {note}")
    return report


def show_table(title: str, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Show rows under a header, the first column to the left; None is what was not measured."""
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(NOT_MEASURED if value is None else str(value) for value in row))
    console.print(table)


def _size(n_bytes: int) -> str:
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
