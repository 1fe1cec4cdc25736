"""The output of ``lumbar train``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from lumbar.display.evaluate import STAND_IN, TRAINING_PRIOR, show_scores
from lumbar.display.run_clock import RunClock
from lumbar.display.terminal import NOT_MEASURED, progress, say, size_text

if TYPE_CHECKING:
    from lumbar.train.locator.positions import PlaceError
    from lumbar.train.trainer.dry_run import DryRun
    from lumbar.train.trainer.events import (
        EpochFinished,
        FoldsFinished,
        FoldStarted,
        RunFinished,
        RunStarted,
        StepFinished,
        TrainEvent,
    )


def show_training(
    events: Iterable[FoldStarted | TrainEvent | FoldsFinished],
) -> RunFinished | FoldsFinished:
    """Draw a training run, or those of all folds: a bar an epoch, a line of metrics after each."""
    from lumbar.train.locator.train import LocatorEpoch
    from lumbar.train.trainer import events as e

    finished: e.RunFinished | e.FoldsFinished | None = None
    with progress() as bar:
        task = bar.add_task("train", total=None, rate="", note="")
        epochs = steps = 0
        by_prior: Collection[str] = ()
        clock = RunClock()
        for event in events:
            match event:
                case e.FoldStarted(fold=fold, folds=folds):
                    clock.start_fold(fold, folds)
                    bar.console.print(f"fold {fold} of {folds}", highlight=False)
                case e.RunStarted():
                    epochs, by_prior = event.epochs, event.parts_by_prior
                    clock.start_run(epochs)
                    for line in _opening(event):
                        bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
                    steps = event.steps
                    bar.update(task, total=steps)
                case LocatorEpoch(epoch=epoch, epochs=total):
                    note = f"loss {event.loss:.3f}"
                    bar.update(
                        task, description="locator", completed=epoch + 1, total=total, note=note
                    )
                case e.LocatorTrained(error=error):
                    clock.mark()
                    bar.console.print(_located(error), highlight=False)
                    bar.update(task, completed=0, total=steps)
                case e.VolumesLoaded(done=done, total=total):
                    rate = f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"
                    bar.update(
                        task, description="to the device", completed=done, total=total, rate=rate
                    )
                    clock.mark()
                    if done == total:
                        bar.update(task, completed=0, total=steps)
                case e.StepFinished(epoch=epoch, step=step):
                    bar.update(
                        task,
                        description=f"epoch {epoch + 1}/{epochs}",
                        completed=step + 1,
                        rate=f"{event.samples / event.seconds:.1f} samples/s",
                        note=_step_note(event),
                    )
                case e.EpochFinished():
                    line = _epoch_line(event, epochs, by_prior)
                    line = f"{line}; {clock.end_epoch(event.epoch + 1)}"
                    bar.console.print(line, highlight=False, soft_wrap=True)
                case e.RunFinished() | e.FoldsFinished():
                    finished = event
    assert finished is not None
    _show_end(finished, by_prior)
    return finished


def _show_end(finished: RunFinished | FoldsFinished, by_prior: Collection[str]) -> None:
    """Show the score of a run, or of all folds, beside that of the training prior."""
    from lumbar.train.trainer import events as e

    if isinstance(finished, e.FoldsFinished):
        name, score = "all folds", finished.score
        title = "all studies, each when it was held out"
    else:
        name, score = f"best epoch ({finished.best.epoch + 1})", finished.best.score
        title = "held-out studies"
    show_scores(
        {name: score, TRAINING_PRIOR: finished.prior}, title=title, by_prior={name: by_prior}
    )


def _not_trained(by_prior: Collection[str]) -> list[str]:
    """Return a line that names the parts of the metric without a model, if there are any."""
    if not by_prior:
        return []
    parts = ", ".join(part.replace("_", " ") for part in by_prior if part != "total")
    return [
        f"no model of {parts}: the training prior stands in there and in the total, "
        f"marked {STAND_IN}"
    ]


def show_dry_run(found: DryRun) -> None:
    """Show the resolved configuration of a run, what it would train on, and what it needs."""
    say(found.config.to_toml())
    epochs = found.config.epochs
    say(
        f"{found.train_samples} samples of {found.train_studies} studies to train on, "
        f"{found.held_out_samples} of {found.held_out_studies} held out, of {found.cache}"
    )
    say(f"{found.steps} steps an epoch, {found.steps * epochs} in {epochs} epochs")
    parts = (
        f"{size_text(found.weight_bytes)} for {found.parameters / 1e6:.1f} M weights, their "
        "gradients and averages",
        f"{found.at_once} x {size_text(found.sample_bytes)} that the network keeps of a sample",
        f"{size_text(found.image_bytes)} of pixels",
        *([f"{size_text(found.volume_bytes)} of volumes"] if found.volume_bytes else []),
    )
    say(f"memory, about: {size_text(found.total_bytes)} ({'; '.join(parts)})")
    say(found.placement)
    say("nothing is trained and nothing is written")


def _opening(event: RunStarted) -> list[str]:
    """Return the lines that describe a run before its first step."""
    resumed = _resumed(event.first_epoch, event.epochs) if event.first_epoch else ""
    lines = (
        f"{event.train_series} series to train on, {event.valid_series} held out, "
        f"{event.parameters / 1e6:.1f} M parameters on {event.device} -> {event.run}",
        event.placement,
        *_not_trained(event.parts_by_prior),
        event.schedule,
        resumed,
    )
    return [line for line in lines if line]


def _located(error: PlaceError | None) -> str:
    if error is None:
        return "held-out discs are located; none of them is annotated"
    return (
        f"{error.discs} held-out discs are located {error.median_mm:.1f} mm from the annotated "
        f"places (median; 95 % within {error.p95_mm:.1f} mm)"
    )


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


def _epoch_line(event: EpochFinished, epochs: int, by_prior: Collection[str]) -> str:
    gpu = NOT_MEASURED if event.gpu_percent is None else f"{event.gpu_percent:.0f} %"
    parts = ", ".join(
        f"{name.split('_', maxsplit=1)[0]} {value:.3f}{STAND_IN * (name in by_prior)}"
        for name, value in event.score.to_json().items()
        if value is not None
    )
    best = " [green]best[/]" if event.is_best else ""
    return (
        f"epoch {event.epoch + 1}/{epochs}: loss {event.train_loss:.3f}, held out "
        f"{event.valid_loss:.3f}; {parts}; {event.samples_per_second:.1f} samples/s, "
        f"data wait {100 * event.data_wait:.1f} %, GPU {gpu}{best}"
    )
