"""The events of a training run; `lumbar.display` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumbar.train.evaluation.metric import Score
from lumbar.train.locator.positions import PlaceError
from lumbar.train.locator.train import LocatorEpoch


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run is set up: what it trains on and for how long.

    ``placement`` is one line on where volumes lie, where pixels are rendered, and why.
    ``parts_by_prior`` of the metric contain cells of the training prior: the run has no model of
    them. ``schedule`` is one line on how a changed number of epochs changes the learning rate of a
    resumed run, "" where it is unchanged.
    """

    run: Path
    train_series: int
    valid_series: int
    epochs: int
    first_epoch: int
    steps: int
    device: str
    parameters: int
    placement: str
    parts_by_prior: Sequence[str] = ()
    schedule: str = ""


@dataclass(frozen=True, slots=True)
class VolumesLoaded:
    """So many bytes of the volumes lie on the device; only with the tier ``device``."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class LocatorTrained:
    """The locator of a disc run has found the held-out discs.

    ``error`` is how far from the annotated ones, None where none of them is annotated.
    """

    error: PlaceError | None


@dataclass(frozen=True, slots=True)
class StepFinished:
    """One optimiser step; seconds are wall time, ``wait_seconds`` the part spent on data.

    On a GPU the host runs ahead, so the wait is known for whole epochs alone, and None here.
    """

    epoch: int
    step: int
    loss: float | None
    samples: int
    seconds: float
    wait_seconds: float | None


@dataclass(frozen=True, slots=True)
class EpochFinished:
    """One epoch with its validation."""

    epoch: int
    train_loss: float
    valid_loss: float
    learning_rate: float
    score: Score
    is_best: bool
    samples_per_second: float
    data_wait: float
    gpu_percent: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the line of ``metrics.jsonl``."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "valid_loss": self.valid_loss,
            "learning_rate": self.learning_rate,
            "score": self.score.to_json(),
            "is_best": self.is_best,
            "samples_per_second": self.samples_per_second,
            "data_wait": self.data_wait,
            "gpu_percent": self.gpu_percent,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EpochFinished:
        """Read a line of ``metrics.jsonl``."""
        return cls(**{**value, "score": Score(**value["score"])})


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over; ``best`` is the epoch whose weights are in ``best.pt``."""

    run: Path
    best: EpochFinished
    prior: Score
    """That of the training prior."""


@dataclass(frozen=True, slots=True)
class FoldStarted:
    """The run of a fold, from 0, comes next; after it, its own events."""

    fold: int
    folds: int


@dataclass(frozen=True, slots=True)
class FoldsFinished:
    """All folds are trained; the scores are of all studies, each when it was held out."""

    run: Path
    score: Score
    prior: Score
    """That of the training priors, each of the fold that held the study out."""


TrainEvent = (
    RunStarted
    | LocatorEpoch
    | LocatorTrained
    | VolumesLoaded
    | StepFinished
    | EpochFinished
    | RunFinished
)
