"""``best.pt`` and ``last.pt``: what a model is, and what a run needs to go on."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lumbar import __version__
from lumbar.cache.errors import FormatError, InputError, MissingError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.names import N_CELLS, N_SEVERITIES
from lumbar.train.evaluation.baselines import CellPrior
from lumbar.train.locator.locate import Locator
from lumbar.train.run.config import RunConfig, validated
from lumbar.train.run.network import Network, build_model

CHECKPOINT_VERSION = 1
BEST, LAST = "best.pt", "last.pt"


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model with what is needed to use it.

    ``prior`` is that of its training studies; ``preprocess`` is the configuration of the cache that
    it was trained on, so that others are read in the same way. A model of discs has the ``locator``
    that finds them.
    """

    config: RunConfig
    model: Network
    prior: CellPrior
    preprocess: dict[str, Any]
    locator: Locator | None = None


def save_checkpoint(path: Path, trained: TrainedModel, *, training: dict[str, Any] | None) -> None:
    """Write a checkpoint whole or not at all; ``training`` is the state that a resume needs."""
    buffer = io.BytesIO()
    torch.save(
        {
            "checkpoint_version": CHECKPOINT_VERSION,
            "lumbar_version": __version__,
            "config": trained.config.model_dump_json(),
            "model": trained.model.state_dict(),
            "prior": torch.from_numpy(trained.prior),
            "preprocess": json.dumps(trained.preprocess),
            "locator": None if trained.locator is None else trained.locator.state(),
            "training": training,
        },
        buffer,
    )
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> tuple[TrainedModel, dict[str, Any] | None]:
    """Read a checkpoint to the CPU; nothing in it is executed.

    Raises
    ------
    MissingError, FormatError, InputError
        If it is absent, no checkpoint of ours, of another version, or its weights do not fit its
        configuration.
    """
    document = _document(path)
    config = validated(json.loads(document["config"]), where=path)
    model = build_model(config, weights=False)
    load_weights(model, document["model"], where=path)
    found = document.get("locator")
    locator = None if found is None else Locator.from_state(found)
    prior = _prior(document, path)
    trained = TrainedModel(config, model, prior, json.loads(document["preprocess"]), locator)
    return trained, document["training"]


def load_prior(path: Path) -> CellPrior:
    """Read the training prior of a checkpoint alone; raises as `load_checkpoint` does."""
    return _prior(_document(path), path)


def _document(path: Path) -> dict[str, Any]:
    """Return what a checkpoint of our version holds, all of it there."""
    document = _read(path)
    version = document.get("checkpoint_version")
    if version != CHECKPOINT_VERSION:
        raise FormatError(
            what="version of a checkpoint",
            where=path,
            got=version or "none: another program wrote it",
            expected=CHECKPOINT_VERSION,
            cure="use the lumbar that wrote it, or train again",
        )
    missing = {"config", "model", "prior", "preprocess", "training"} - document.keys()
    if missing:
        raise FormatError(
            what="checkpoint",
            where=path,
            got=f"a file without {', '.join(sorted(missing))}",
            expected="a checkpoint that `lumbar train` wrote",
            cure="name another one, or train again",
        )
    return document


def _prior(document: dict[str, Any], path: Path) -> CellPrior:
    prior = np.asarray(document["prior"].numpy(), np.float64)
    if prior.shape != (N_CELLS, N_SEVERITIES):
        raise FormatError(
            what="prior of a checkpoint",
            where=path,
            got=prior.shape,
            expected=(N_CELLS, N_SEVERITIES),
        )
    return prior


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], *, where: object) -> None:
    """Put weights into a model; raise `InputError` where a name or shape is not the model's."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(own.keys() | given.keys()):
        if own.get(name) != given.get(name):
            raise InputError(
                what="checkpoint of another shape",
                where=where,
                got=f"{name} {given.get(name, 'absent')}",
                expected=f"{own.get(name, 'no such weight')}",
                cure="name the checkpoint that belongs to this configuration",
            )
    model.load_state_dict(weights)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise MissingError(
            what="no such checkpoint",
            where=path,
            got="nothing",
            expected="a run's folder, or its best.pt, which `lumbar train` writes after an epoch",
            cure="name one that is there, or train anew",
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to call
        raise FormatError(
            what="checkpoint that cannot be read",
            where=path,
            got=f"a file that torch cannot read ({type(error).__name__})",
            expected="a checkpoint that `lumbar train` wrote",
            cure="name a run's folder or its best.pt",
        ) from error
    if not isinstance(document, dict):
        raise FormatError(
            what="checkpoint",
            where=path,
            got=type(document).__name__,
            expected="a checkpoint that `lumbar train` wrote",
            cure="name a run's folder or its best.pt",
        )
    return document
