"""The events of a sweep; `lumbar.display` shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lumbar.train.trainer.events import EpochFinished

TrialState = Literal["complete", "pruned", "failed", "retried", "running", "waiting"]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A line of the results: the values of a trial and its score.

    ``score`` is the best held-out metric of its epochs, ``best_epoch`` counts from 1. ``params``
    are values of keys of a run's configuration. ``note`` is why a trial failed.
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
    """A trial begins, or resumes after ``first_epoch`` epochs that another process trained.

    ``has_prior_cells`` tells whether its scores contain cells of the training prior.
    """

    number: int
    run: Path
    params: dict[str, Any]
    attempt: int
    epochs: int
    first_epoch: int
    has_prior_cells: bool = False


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
