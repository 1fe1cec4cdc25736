"""Send a run's events to Weights & Biases as well; the package is the extra ``wandb``."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumbar.cache.errors import InputError
from lumbar.train.run.config import RunConfig
from lumbar.train.trainer.events import EpochFinished, RunFinished, RunStarted, TrainEvent
from lumbar.train.trainer.run_log import board_scalars


def recorded(
    events: Iterator[TrainEvent], config: RunConfig, *, project: str, name: str
) -> Iterator[TrainEvent]:
    """Yield the events of a run, and send each epoch's numbers to a project.

    A resumed run keeps its name. Without a network, set ``WANDB_MODE=offline``.

    Raises
    ------
    InputError
        If the package is not installed.
    """
    wandb = _package()
    run = wandb.init(
        project=project, id=name, name=name, resume="allow", config=config.model_dump(mode="json")
    )
    try:
        for event in events:
            if isinstance(event, RunStarted):
                run.config.update({"device": event.device, "parameters": event.parameters})
            elif isinstance(event, EpochFinished):
                run.log(board_scalars(event), step=event.epoch)
            elif isinstance(event, RunFinished):
                run.summary.update({"best/epoch": event.best.epoch})
                run.summary.update({"best/total": event.best.score.total})
            yield event
    finally:
        run.finish()


def run_name(folder: Path) -> str:
    """Return the name under which the run of a folder is known: the folder's, and its parent's."""
    resolved = folder.resolve()
    return f"{resolved.parent.name}-{resolved.name}"


def _package() -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise InputError(
            what="Weights & Biases is not installed",
            where="--wandb",
            got=error,
            expected="the package wandb",
            cure="pip install 'lumbar[wandb]'",
        ) from error
