"""Train the network that finds discs on the annotated points of the training studies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from lumbar.cache.errors import InputError, LumbarError
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.device_tensors import to_device
from lumbar.train.locator.config import AUGMENT, LocatorConfig
from lumbar.train.locator.heatmap import TruePlaces, place_loss
from lumbar.train.locator.locate import Locator
from lumbar.train.locator.network import LocatorNetwork
from lumbar.train.locator.positions import Places, annotated_places, to_crop, with_missing_levels
from lumbar.train.optim import fused_for, learning_rate_factor
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.batch import Batch
from lumbar.train.reader.reader import Reader

WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
WARMUP = 0.2


@dataclass(frozen=True, slots=True)
class LocatorEpoch:
    """One epoch of the locator's training; ``loss`` is the epoch's mean."""

    epoch: int
    epochs: int
    loss: float


def train_locator(
    cache: Cache,
    rows: Sequence[int],
    config: LocatorConfig,
    *,
    device: torch.device,
    threads: int,
    seed: int,
) -> Iterator[LocatorEpoch | Locator]:
    """Train on series of one type, without those that lack points; yield the locator at the end.

    The same seed gives the same weights, bit for bit on the CPU. Torch's global generators are not
    changed.

    Raises
    ------
    InputError
        If the series are of several types, or fewer than two levels have annotated points.
    LumbarError
        If the loss is not finite.
    """
    series_type = _one_type(cache, rows)
    places = annotated_places(cache, rows)
    known = ~np.isnan(places).any(axis=2)
    levels = known.any(axis=0)
    # Raises before any work if there are too few levels for the others.
    with_missing_levels(places, levels)
    pointed = [row for row, any_known in zip(rows, known.any(axis=1), strict=True) if any_known]
    plan = Plan(
        Samples.of_series(cache, pointed),
        config.crop,
        AUGMENT,
        batch=config.batch,
        shuffle=True,
        seed=seed,
    )
    truth = _Truth(
        places[known.any(axis=1)], cache.series["spacing_d_mm"].to_numpy()[pointed], device
    )
    network = _fresh_network(seed).to(device)
    weights = list(network.parameters())
    optimizer = torch.optim.AdamW(
        weights, config.lr, weight_decay=WEIGHT_DECAY, fused=fused_for(weights)
    )
    steps = config.epochs * plan.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(step, steps=steps, warmup=WARMUP, kind="one_cycle"),
    )
    with Reader(cache, plan, device=device, threads=threads) as reader:
        for epoch in range(config.epochs):
            losses = []
            for batch in reader.epoch():
                log_heat = network(batch.image, batch.present, batch.position, batch.lengths)
                loss = place_loss(log_heat, batch.present, truth.of(batch), config)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(weights, CLIP_NORM)
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
            yield LocatorEpoch(epoch, config.epochs, _mean(losses))
    yield Locator(config, series_type, levels, network)


@dataclass(frozen=True, slots=True)
class _Truth:
    """The true places of the discs of a plan's samples, by their index."""

    places: Places
    slice_mm: Float64[np.ndarray, " n"]
    device: torch.device

    def of(self, batch: Batch) -> TruePlaces:
        """Return the true places of a batch, in the pixels of its views."""
        index = [request.index for request in batch.requests]
        views = [request.views[0] for request in batch.requests]
        places = self.places[index]
        wh = np.stack(
            [to_crop(of_one[:, 1:], v.matrix) for of_one, v in zip(places, views, strict=True)]
        )
        slices = np.stack([view.slices for view in views])
        return TruePlaces(
            d=self._tensor(np.nan_to_num(places[..., 0])),
            wh=self._tensor(np.nan_to_num(wh)),
            known=to_device(torch.from_numpy(~np.isnan(wh).any(axis=2)), self.device),
            slices=self._tensor(slices),
            slice_mm=self._tensor(self.slice_mm[index]),
        )

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return to_device(torch.from_numpy(values.astype(np.float32)), self.device)


def _fresh_network(seed: int) -> LocatorNetwork:
    """Return a network with random weights of a seed, without changing torch's generators."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LocatorNetwork()


def _mean(losses: Sequence[torch.Tensor]) -> float:
    """Return the mean loss of an epoch; raise `LumbarError` if it is not finite."""
    mean = float(torch.stack(list(losses)).mean())
    if not np.isfinite(mean):
        raise LumbarError(
            what="the loss of the locator is not finite", got=mean, cure="lower locator.lr"
        )
    return mean


def _one_type(cache: Cache, rows: Sequence[int]) -> SeriesType:
    types = sorted(set(cache.series["series_type"][list(rows)]))
    if len(types) != 1:
        raise InputError(
            what="series to train a locator on",
            where=cache.root,
            got=", ".join(types) or "none",
            expected="series of one type",
            cure="choose series of one type",
        )
    return SeriesType(types[0])
