"""Refuse, before the first step, what cannot be trained or cannot be scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from torch import nn

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import CONDITIONS, LEVELS
from lumbar.train.loss.config import trained_cells
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import ABSENT
from lumbar.train.run.config import RunConfig
from lumbar.train.run.network import Network
from lumbar.train.run.split import SampleSplit

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_log = logging.getLogger(__name__)


def check_labels(config: RunConfig, split: SampleSplit) -> None:
    """Refuse a condition that is to be trained and has no label to train on.

    Its predictions would be chance and replace the prior. If no trained condition has a label among
    the held-out studies, no epoch can be better than another, which is refused too. If only some
    have none, the score leaves them out, with a warning.

    Raises
    ------
    InputError
        If a condition has no known label among the samples to train on, or all have none among the
        held-out studies.
    """
    cells = trained_cells(config.loss, config.series_types).numpy().reshape(-1, len(LEVELS))
    wanted = [c for c in range(len(CONDITIONS)) if cells[c].any()]
    held_out = np.stack(list(split.held_out_severity.values()))
    for side, severity in (("training", split.train.severity), ("held-out", held_out)):
        known = (severity != UNKNOWN).reshape(-1, len(CONDITIONS), len(LEVELS)).any(axis=(0, 2))
        without = [CONDITIONS[c] for c in wanted if not known[c]]
        if side == "held-out" and 0 < len(without) < len(wanted):
            _log.warning(
                "no %s study has a label of %s: the score of an epoch leaves it out",
                side,
                " and ".join(without),
            )
        elif without:
            raise _unlabelled(without, side, n_studies=len(severity))


def check_batch_norms(network: Network, config: RunConfig, plan: Plan) -> None:
    """Refuse a batch norm that would get a single value per channel: it has no variance.

    That happens with a batch, or a part of one, of one sample with one slice, if the encoder's
    feature maps have a single pixel.

    Raises
    ------
    InputError
        If such a batch comes.
    """
    pixels = config.crop.height * config.crop.width // config.model.stride**2
    learning = any(
        isinstance(module, BATCH_NORMS) and any(p.requires_grad for p in module.parameters())
        for encoder in network.encoders
        for module in encoder.modules()
    )
    samples = smallest_part(config, plan.epoch_size, world=plan.world)
    slices = _fewest_slices(config, plan)
    if learning and pixels * samples * slices <= 1:
        raise InputError(
            what="batch norm over a single value",
            where="model.backbone",
            got=f"a batch of {samples} sample of {slices} slice, and maps of {pixels} pixel",
            expected="more than one value of every channel",
            cure="set crop.slices, crop.height, crop.width or optim.batch higher, or choose a "
            "backbone without batch norms, such as convnext_tiny",
        )


def smallest_part(config: RunConfig, n_samples: int, *, world: int) -> int:
    """Return the samples of the smallest part of a batch that goes through the network at once."""
    whole = config.optim.batch
    of_rank = -(-(n_samples % whole or whole) // world)
    return max(of_rank // config.optim.accumulate, 1)


def _fewest_slices(config: RunConfig, plan: Plan) -> int:
    """Return the slices that a sample has at least, the filled ones not counted."""
    samples = plan.samples
    depths = (samples.stack[..., 1] - samples.stack[..., 0])[samples.row != ABSENT]
    depth = depths.min(initial=config.crop.slices)
    return 1 if config.augment.slice_dropout else int(min(depth, config.crop.slices))


def _unlabelled(conditions: Sequence[str], side: str, *, n_studies: int) -> InputError:
    return InputError(
        what=f"nothing is known of what is to be {'learnt' if side == 'training' else 'judged'}",
        where=" and ".join(conditions),
        got=f"no label in {n_studies} {'samples' if side == 'training' else 'studies'} "
        f"of the {side} side",
        expected="one at least",
        cure="preprocess with labels of it, choose another split.fold or split.seed, or leave it "
        "out by loss.conditions or study_types",
    )
