"""What a sweep tells as it goes; `lumbar.display` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lumbar.train.trainer.events import EpochFinished

TrialState = Literal["complete", "pruned", "failed", "retried", "running", "waiting"]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A line of the results: what a trial tried and what it came to.

    ``score`` is the best held-out metric of its epochs, ``best_epoch`` counts from 1. ``params``
    are values of keys of a run's configuration. ``note`` says why a trial failed.
    """

    number: int
    state: TrialState
    score: float | None
    best_epoch: int | None
    epochs: int
    minutes: float | None
    params: dict[str, Any]
    run: str
    note: str


@dataclass(frozen=True, slots=True)
class SweepStarted:
    """The sweep is open; ``over`` of its ``trials`` are over already."""

    folder: Path
    storage: str
    trials: int
    over: int


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A trial begins, or goes on after ``first_epoch`` epochs that another process trained.

    In its scores the training prior ``stands_in`` where it has no model.
    """

    number: int
    run: Path
    params: dict[str, Any]
    attempt: int
    epochs: int
    first_epoch: int
    stands_in: bool = False


@dataclass(frozen=True, slots=True)
class TrialEpoch:
    """One epoch of a trial."""

    number: int
    epochs: int
    epoch: EpochFinished


@dataclass(frozen=True, slots=True)
class TrialFinished:
    """A trial is over; ``best`` is the best of all complete ones so far."""

    row: TrialRow
    over: int
    best: TrialRow | None


@dataclass(frozen=True, slots=True)
class SweepFinished:
    """Nothing is left to do for this process; ``importances`` are shares of the searched keys."""

    rows: list[TrialRow]
    best: TrialRow | None
    best_config: Path | None
    importances: dict[str, float]


SweepEvent = SweepStarted | TrialStarted | TrialEpoch | TrialFinished | SweepFinished
