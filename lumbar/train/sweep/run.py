"""The sweep: one trial after another, each a run of the training loop."""

from __future__ import annotations

import gc
import logging
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna.trial import TrialState

from lumbar.cache.errors import BusyError, LumbarError
from lumbar.cache.store import Cache
from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.run.checkpoint import LAST
from lumbar.train.run.config import RunConfig, read_config
from lumbar.train.sweep.config import SweepConfig
from lumbar.train.sweep.events import (
    SweepEvent,
    SweepFinished,
    SweepStarted,
    TrialEpoch,
    TrialFinished,
    TrialStarted,
)
from lumbar.train.sweep.results import ERROR, best_of, importances_of, rows_of, write_results
from lumbar.train.sweep.storage import open_study, shown_url, storage_errors
from lumbar.train.sweep.trials import ATTEMPT, next_trial, run_folder, tidy_folders
from lumbar.train.trainer.events import EpochFinished, RunStarted, TrainEvent
from lumbar.train.trainer.loop import CONFIG, train
from lumbar.train.trainer.run_log import read_metrics

MOST_FAILURES_IN_A_ROW = 5
"""A sweep ends after this many failed trials in a row."""

OVER = {"complete", "pruned", "failed"}
SECONDS_AN_HOUR = 3600

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Resources:
    """The cache, the device and the settings of every trial of this process."""

    cache: Cache
    config: SweepConfig
    folder: Path
    device: torch.device
    threads: int
    tier: Tier
    draw: Draw


@dataclass(frozen=True, slots=True)
class _Broken:
    """A trial ended by an error, which costs this trial alone."""

    error: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    state: Literal["complete", "pruned", "failed"]
    score: float | None = None
    error: str = ""


def sweep(
    cache: Cache,
    config: SweepConfig,
    folder: Path,
    *,
    name: str,
    device: torch.device,
    threads: int,
    tier: Tier = "auto",
    draw: Draw = "auto",
    storage: str | None = None,
) -> Iterator[SweepEvent]:
    """Run trials until there are enough, or the hours are over; the same call resumes a sweep.

    ``storage`` is the URL of a database that several machines share; by default SQLite in the
    folder. Trials that a killed process left are tried again from their last epoch. A trial that
    fails is recorded and costs itself alone.

    Raises
    ------
    InputError
        If the storage cannot be opened, or holds another sweep of this name.
    LumbarError
        If the storage fails on the way, or trial after trial does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    resources = _Resources(cache, config, folder, device, threads, tier, draw)
    ends = time.monotonic() + (config.hours or float("inf")) * SECONDS_AN_HOUR
    with storage_errors(storage):
        study = open_study(config, cache, folder, storage=storage, name=name)
        rows = rows_of(study, config)
        yield SweepStarted(
            folder=folder,
            storage=shown_url(storage) if storage else "in the folder",
            trials=config.trials,
            over=sum(row.state in OVER for row in rows),
        )
        failures = 0
        while time.monotonic() < ends:
            with next_trial(study, config, folder, storage=storage) as trial:
                if trial is None:
                    break
                outcome = yield from _run_trial(study, trial, resources)
                _tell(study, trial, outcome)
            _free_memory()
            tidy_folders(study, folder)
            rows = rows_of(study, config)
            write_results(folder, config, rows, importances_of(study, rows))
            over = sum(row.state in OVER for row in rows)
            yield TrialFinished(row=rows[trial.number], over=over, best=best_of(rows))
            failures = failures + 1 if outcome.state == "failed" else 0
            _check_failures(failures, outcome, folder)
        yield _finish(study, resources)


def _run_trial(
    study: optuna.Study, trial: optuna.Trial, resources: _Resources
) -> Generator[SweepEvent, None, _Outcome]:
    """Train a trial, told to Optuna epoch by epoch, until it is over or not worth going on with."""
    run = run_folder(resources.folder, trial.number)
    values = resources.config.values_of(trial.params)
    epochs = 0
    scores: list[float] = []
    with closing(_guarded(resources, values, run)) as events:
        for event in events:
            match event:
                case _Broken(error=error):
                    return _Outcome("failed", error=error)
                case RunStarted():
                    epochs = event.epochs
                    trained = read_metrics(run)[: event.first_epoch] if event.first_epoch else []
                    scores += [_report(trial, entry) for entry in trained]
                    yield TrialStarted(
                        number=trial.number,
                        run=run,
                        params=values,
                        attempt=trial.user_attrs.get(ATTEMPT, 1),
                        epochs=epochs,
                        first_epoch=event.first_epoch,
                        has_prior_cells=bool(event.parts_by_prior),
                    )
                case EpochFinished():
                    scores.append(_report(trial, event))
                    yield TrialEpoch(number=trial.number, epochs=epochs, epoch=event)
                    if event.epoch + 1 < epochs and trial.should_prune():
                        return _Outcome("pruned")
    return _Outcome("complete", score=min(scores))


def _report(trial: optuna.Trial, epoch: EpochFinished) -> float:
    """Tell Optuna an epoch's score; its steps are epochs from 1."""
    trial.report(epoch.score.total, epoch.epoch + 1)
    return epoch.score.total


def _guarded(
    resources: _Resources, values: dict[str, Any], run: Path
) -> Generator[TrainEvent | _Broken, None, None]:
    """Train a run; what fails in it comes as the last event."""
    try:
        config = resources.config.run_config(values)
        yield from _train(resources, config, run)
    except LumbarError as error:
        yield _Broken(str(error))
    except OSError:
        raise  # a full disk or a lost cache would fail the next trial too
    except Exception as error:  # such as a network that is too large or of the wrong shape
        _log.debug("the traceback of %s", run.name, exc_info=error)
        yield _Broken(f"{type(error).__name__}: {error}")


def _train(resources: _Resources, config: RunConfig, run: Path) -> Iterator[TrainEvent]:
    """Resume the run of an earlier attempt, or start it."""

    def events(*, resume: bool) -> Iterator[TrainEvent]:
        return train(
            resources.cache,
            config,
            run,
            device=resources.device,
            threads=resources.threads,
            tier=resources.tier,
            draw=resources.draw,
            resume=resume,
        )

    if _can_resume(run, config):
        resumed = events(resume=True)
        try:
            first = next(resumed)
        except BusyError:
            raise
        except LumbarError as error:
            _log.warning("%s cannot be resumed and starts again: %s", run.name, error)
        else:
            yield first
            yield from resumed
            return
    if run.exists():
        shutil.rmtree(run)
    yield from events(resume=False)


def _can_resume(run: Path, config: RunConfig) -> bool:
    if not (run / LAST).is_file():
        return False
    try:
        return read_config(run / CONFIG) == config
    except LumbarError:
        return False


def _tell(study: optuna.Study, trial: optuna.Trial, outcome: _Outcome) -> None:
    """Tell Optuna how a trial ended."""
    match outcome.state:
        case "complete":
            study.tell(trial, outcome.score)
        case "pruned":
            study.tell(trial, state=TrialState.PRUNED)
        case "failed":
            trial.set_user_attr(ERROR, outcome.error)
            study.tell(trial, state=TrialState.FAIL)


def _free_memory() -> None:
    """Give back the device's memory that a trial held, before the next one needs it."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _check_failures(failures: int, outcome: _Outcome, folder: Path) -> None:
    if failures >= MOST_FAILURES_IN_A_ROW:
        raise LumbarError(
            what=f"{failures} trials failed one after the other",
            where=folder,
            got=f"in the last one: {outcome.error}",
            expected="trials that train",
            cure="correct [run] or [search], and sweep into another folder",
        )


def _finish(study: optuna.Study, resources: _Resources) -> SweepFinished:
    """Write the results a last time, other processes' trials with them."""
    rows = rows_of(study, resources.config)
    importances = importances_of(study, rows)
    best_config = write_results(resources.folder, resources.config, rows, importances)
    return SweepFinished(rows, best_of(rows), best_config, importances)
