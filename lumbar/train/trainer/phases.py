"""The phases of a run: one, or a second in which the head alone is trained on another loss."""

from __future__ import annotations

from dataclasses import dataclass

from lumbar.train.loss import LossConfig
from lumbar.train.optim import learning_rate_factor
from lumbar.train.run.config import RunConfig


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs ``first`` to ``last`` (excluded) of a run, and how they are trained."""

    first: int
    last: int
    loss: LossConfig
    lr: float
    head_only: bool


def phases_of(config: RunConfig) -> tuple[Phase, ...]:
    """Return the phases of a run in order; they cover all its epochs."""
    epochs = config.optim.epochs
    main = Phase(0, epochs, config.loss, config.optim.lr, head_only=False)
    finish = config.finish
    if not finish.epochs:
        return (main,)
    return main, Phase(epochs, epochs + finish.epochs, finish.loss, finish.lr, head_only=True)


def phase_at(config: RunConfig, epoch: int) -> Phase:
    """Return the phase of an epoch; behind the last one, the last."""
    return next((p for p in phases_of(config) if epoch < p.last), phases_of(config)[-1])


def rate_factor(config: RunConfig, step: int, *, steps: int) -> float:
    """Return the factor on ``optim.lr`` at a step of the run, each epoch having ``steps``.

    Every phase goes through the schedule anew, up to its own peak.
    """
    phase = phase_at(config, step // steps)
    factor = learning_rate_factor(
        step - phase.first * steps,
        steps=(phase.last - phase.first) * steps,
        warmup=config.optim.warmup,
        kind=config.optim.schedule,
    )
    return factor * phase.lr / config.optim.lr
