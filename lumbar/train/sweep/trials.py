"""The next trial: first those that a dead process left, then new ones.

Several processes may work in one folder, and several folders on one storage. Whoever works on a
trial holds its lock, which the kernel takes away when the process ends, however it ends. So a trial
of this folder that the storage calls running, and whose lock is free, has lost its process.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from lumbar.cache.errors import BusyError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.files.lock import locked
from lumbar.train.run.checkpoint import LAST
from lumbar.train.sweep.config import SweepConfig
from lumbar.train.sweep.storage import distributions, make_sampler

MOST_ATTEMPTS = 3
"""A trial whose process dies so often is not tried again: it may be what kills it."""
NAMELESS_SECONDS = 60
"""A running trial has no owner for a moment; after this long it will not get one."""
LOCK_POLL_SECONDS = 0.1

WORKER, ATTEMPT, RETRY_OF = "worker", "attempt", "retry_of"
"""Attributes of a trial: the folder that runs it, which attempt it is, and of which trial."""

SUFFIXES = {TrialState.PRUNED: "-pruned", TrialState.FAIL: "-failed"}

_log = logging.getLogger(__name__)


def run_folder(folder: Path, number: int, suffix: str = "") -> Path:
    """Return where the run of a trial is."""
    return folder / f"trial-{number:04}{suffix}"


@contextmanager
def next_trial(
    study: optuna.Study, config: SweepConfig, folder: Path, *, storage: str | None
) -> Iterator[optuna.Trial | None]:
    """Take the next trial and hold it, or None where all are taken.

    A trial that is tried again has the parameters of the first attempt, and its folder.
    """
    with ExitStack() as held:
        with _waiting_for(folder):
            worker = _worker(folder)
            _retry_dead(study, folder, worker)
            trial = _ask(study, config, storage=storage)
            if trial is not None:
                trial.set_user_attr(WORKER, worker)
                held.enter_context(locked(_lock_folder(folder, trial.number)))
                _take_over(folder, trial)
        yield trial


@contextmanager
def _waiting_for(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder for a moment, after whoever holds it now."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(folder))
                break
            except BusyError:
                time.sleep(LOCK_POLL_SECONDS)
        yield


def _worker(folder: Path) -> str:
    """Return the name of a folder, which it keeps wherever it is moved."""
    path = folder / ".worker"
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex.encode())
    return path.read_text()


def _lock_folder(folder: Path, number: int) -> Path:
    lock = folder / ".locks" / f"{number:04}"
    lock.mkdir(parents=True, exist_ok=True)
    return lock


def _retry_dead(study: optuna.Study, folder: Path, worker: str) -> None:
    """Fail the trials whose process is dead, and queue their parameters again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_dead(trial, folder, worker):
            continue
        attempt = trial.user_attrs.get(ATTEMPT, 1)
        _log.warning("trial %d lost its process in attempt %d", trial.number, attempt)
        study.tell(trial.number, state=TrialState.FAIL)
        if attempt < MOST_ATTEMPTS:
            study.enqueue_trial(
                trial.params, user_attrs={ATTEMPT: attempt + 1, RETRY_OF: trial.number}
            )


def _is_dead(trial: FrozenTrial, folder: Path, worker: str) -> bool:
    if WORKER not in trial.user_attrs:
        age = datetime.now() - (trial.datetime_start or datetime.now())  # as Optuna notes it
        return age > timedelta(seconds=NAMELESS_SECONDS)
    if trial.user_attrs[WORKER] != worker:
        return False
    try:
        with locked(_lock_folder(folder, trial.number)):
            return True
    except BusyError:
        return False


def _ask(study: optuna.Study, config: SweepConfig, *, storage: str | None) -> optuna.Trial | None:
    """Take a trial that waits for another attempt, or a new one; None where there are enough."""
    trials = study.get_trials(deepcopy=False)
    begun = sum(RETRY_OF not in trial.user_attrs for trial in trials)
    waits = any(trial.state == TrialState.WAITING for trial in trials)
    if begun >= config.trials and not waits:
        return None
    study.sampler = make_sampler(config, begun, storage=storage)
    return study.ask(distributions(config))


def _take_over(folder: Path, trial: optuna.Trial) -> None:
    """Give the run of an earlier attempt the name of this one."""
    if RETRY_OF in trial.user_attrs:
        earlier = run_folder(folder, trial.user_attrs[RETRY_OF])
        if earlier.is_dir():
            earlier.rename(run_folder(folder, trial.number))


def tidy_folders(study: optuna.Study, folder: Path) -> None:
    """Mark pruned and failed trials in the names of their runs' folders.

    The last checkpoint, the largest file of a run, is removed from trials that are over.
    """
    with _waiting_for(folder):
        trials = study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        for trial in trials:
            run = run_folder(folder, trial.number)
            if not trial.state.is_finished() or trial.number in retried or not run.is_dir():
                continue
            (run / LAST).unlink(missing_ok=True)
            if trial.state in SUFFIXES:
                run.rename(run_folder(folder, trial.number, SUFFIXES[trial.state]))
