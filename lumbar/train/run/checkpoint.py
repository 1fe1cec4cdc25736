"""``best.pt`` and ``last.pt``: a model with what its use needs, and the state for a resume."""

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
class ModelBundle:
    """A model, trained or not, with what its use needs.

    ``prior`` is that of its training studies. ``preprocess`` is the configuration of the cache that
    it is trained on; other data must be preprocessed in the same way. A model of discs has the
    ``locator`` that finds them.
    """

    config: RunConfig
    model: Network
    prior: CellPrior
    preprocess: dict[str, Any]
    locator: Locator | None = None


def save_checkpoint(
    path: Path, bundle: ModelBundle, *, trainer_state: dict[str, Any] | None
) -> None:
    """Write a checkpoint whole or not at all; a resumed run needs the trainer's state."""
    buffer = io.BytesIO()
    torch.save(
        {
            "checkpoint_version": CHECKPOINT_VERSION,
            "lumbar_version": __version__,
            "config": bundle.config.model_dump_json(),
            "model": bundle.model.state_dict(),
            "prior": torch.from_numpy(bundle.prior),
            "preprocess": json.dumps(bundle.preprocess),
            "locator": None if bundle.locator is None else bundle.locator.state(),
            "training": trainer_state,
        },
        buffer,
    )
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> tuple[ModelBundle, dict[str, Any] | None]:
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
    found = document["locator"]
    locator = None if found is None else Locator.from_state(found)
    prior = _prior(document, path)
    bundle = ModelBundle(config, model, prior, json.loads(document["preprocess"]), locator)
    return bundle, document["training"]


def load_prior(path: Path) -> CellPrior:
    """Read the training prior of a checkpoint alone; raises as `load_checkpoint` does."""
    return _prior(_document(path), path)


def _document(path: Path) -> dict[str, Any]:
    """Return what a checkpoint of this version holds; all keys are there."""
    document = load_document(
        path,
        what="checkpoint",
        expected="a checkpoint that `lumbar train` wrote",
        cure="name a run's folder or its best.pt",
    )
    version = document.get("checkpoint_version")
    if version != CHECKPOINT_VERSION:
        raise FormatError(
            what="version of a checkpoint",
            where=path,
            got=version or "none: another program wrote it",
            expected=CHECKPOINT_VERSION,
            cure="use the lumbar that wrote it, or train again",
        )
    missing = {"config", "model", "prior", "preprocess", "locator", "training"} - document.keys()
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


def load_document(path: Path, *, what: str, expected: str, cure: str) -> dict[str, Any]:
    """Return the dictionary that torch saved to a file, on the CPU; nothing in it is executed.

    Raises
    ------
    MissingError, FormatError
        If there is no such file, torch cannot read it, or it holds something else.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise MissingError(
            what=f"no such {what}",
            where=path,
            got="nothing",
            expected="a run's folder, or its best.pt, which `lumbar train` writes after an epoch",
            cure="name one that is there, or train a new one",
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to call
        raise FormatError(
            what=f"{what} that cannot be read",
            where=path,
            got=f"a file that torch cannot read ({type(error).__name__})",
            expected=expected,
            cure=cure,
        ) from error
    if not isinstance(document, dict):
        raise FormatError(
            what=what, where=path, got=type(document).__name__, expected=expected, cure=cure
        )
    return document
