"""The trained locator: its state in a run, and locating the discs of series of its type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from lumbar.cache.errors import InputError
from lumbar.cache.format import Stack
from lumbar.cache.names import LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.locator.config import LocatorConfig
from lumbar.train.locator.heatmap import means
from lumbar.train.locator.network import LocatorNetwork
from lumbar.train.locator.positions import Places, to_volume, with_missing_levels
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples, several_stacks, stacks_of_discs
from lumbar.train.reader.batch import Batch
from lumbar.train.reader.reader import Reader


@dataclass(frozen=True, slots=True)
class Locator:
    """A network that finds the discs of one series type.

    ``levels`` are those that it was trained on; the others are extrapolated along a line.
    """

    config: LocatorConfig
    series_type: SeriesType
    levels: Bool[np.ndarray, "5"]
    network: LocatorNetwork

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint: text, numbers and tensors."""
        return {
            "config": self.config.model_dump_json(),
            "series_type": str(self.series_type),
            "levels": self.levels.tolist(),
            "network": self.network.state_dict(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Locator:
        """Load a `state` to the CPU, without changing torch's generators."""
        # A resumed run has restored them.
        with torch.random.fork_rng(devices=[]):
            network = LocatorNetwork()
        network.load_state_dict(state["network"])
        return cls(
            LocatorConfig.model_validate_json(state["config"]),
            SeriesType(state["series_type"]),
            np.array(state["levels"], bool),
            network,
        )


def locate(
    cache: Cache,
    rows: Sequence[int],
    locator: Locator,
    *,
    device: torch.device,
    threads: int,
) -> Places:
    """Return (d, h, w) of the five discs of each given series, within its volume.

    In an axial series of several stacks, a disc's slice is in the stack with most probability.

    Raises
    ------
    InputError
        If a series is of another type than the locator.
    """
    _check_types(cache, rows, locator)
    if not rows:
        return np.empty((0, len(LEVELS), 3))
    samples = Samples.of_series(cache, rows)
    plan = Plan(
        samples,
        locator.config.crop,
        AugmentConfig.none(),
        batch=locator.config.batch,
        shuffle=False,
    )
    stacks = stacks_of_discs(cache, several_stacks(cache, rows))
    network = locator.network.to(device).eval()
    places: list[Float64[np.ndarray, "5 3"]] = []
    with Reader(cache, plan, device=device, threads=threads) as reader, torch.inference_mode():
        for batch in reader.epoch():
            places += _places_of(batch, network, locator.config, stacks)
    found = with_missing_levels(np.array(places), locator.levels)
    inside: Places = np.clip(found, 0, samples.shape - 1)
    return inside


def _places_of(
    batch: Batch,
    network: LocatorNetwork,
    config: LocatorConfig,
    stacks: dict[int, tuple[Stack, ...]],
) -> list[Float64[np.ndarray, "5 3"]]:
    """Return the places of the discs of each sample of a batch."""
    log_heat = network(batch.image, batch.present, batch.position, batch.lengths)
    found = means(log_heat, config)
    places = []
    for request, probability, wh in zip(
        batch.requests,
        found.slice.double().cpu().numpy(),
        found.wh.double().cpu().numpy(),
        strict=True,
    ):
        (view,) = request.views
        there = view.slices >= 0
        slices = view.slices[there].astype(np.int64)
        starts = np.array([stack.start for stack in stacks.get(view.row, ())] or [0])
        shown = _within_best_stack(probability[:, there], slices, starts)
        d = shown @ slices
        hw = to_volume(np.einsum("ld,ldc->lc", shown, wh[:, there]), view.matrix)
        places.append(np.column_stack([d, hw]))
    return places


def _within_best_stack(
    probability: Float64[np.ndarray, "5 d"],
    slices: Int64[np.ndarray, " d"],
    starts: Int64[np.ndarray, " s"],
) -> Float64[np.ndarray, "5 d"]:
    """Keep, for each disc, the probabilities of the stack with most of them, summing to one.

    A mean over slices of two stacks could lie in a slice that does not show the disc.
    """
    of_slice = np.searchsorted(starts, slices, side="right") - 1
    member = of_slice == np.arange(len(starts))[:, None]
    best = (probability @ member.T).argmax(axis=1)
    kept = np.where(member[best], probability, 0)
    shares: Float64[np.ndarray, "5 d"] = kept / kept.sum(axis=1, keepdims=True)
    return shares


def _check_types(cache: Cache, rows: Sequence[int], locator: Locator) -> None:
    others = set(cache.series["series_type"][list(rows)]) - {str(locator.series_type)}
    if others:
        raise InputError(
            what="series to find discs in",
            where=cache.root,
            got=", ".join(sorted(others)),
            expected=f"{locator.series_type}, which the locator was trained on",
            cure="choose series of that type",
        )
