"""Which samples, which slices, which crop, which numbers: the plan of an epoch.

A plan is a pure function of (seed, epoch, step, rank, world): asking twice gives the same
requests, so a run can start again at any step, and order is tested with integers. It knows neither
torch nor DALI.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int8

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import EXCHANGED_CELLS
from lumbar.train.augment import AugmentConfig, Draws
from lumbar.train.geometry import CropConfig
from lumbar.train.mix import Mix, draw_mix
from lumbar.train.samples import Samples
from lumbar.train.sampling import Order, SamplingConfig, draw_order, epoch_size
from lumbar.train.slices import MOST_SLICES, all_slices
from lumbar.train.views import View, draw_view

LEFT_RIGHT = 0
"""The patient's axis whose mirror image exchanges the sides."""

_ORDER, _PATIENT, _VIEW, _MIX = range(4)
"""Streams of random numbers, so that none repeats another."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to read: a view of each of its series.

    ``index`` is its place in the samples. ``severity`` is what it shows after any exchange of
    sides. A ``filler`` keeps steps and batches equal over the ranks and is known nowhere.
    """

    index: int
    views: tuple[View, ...]
    severity: Int8[np.ndarray, "25"]
    sides_exchanged: bool = False
    filler: bool = False


class Plan:
    """The requests of every step of every epoch, for one rank.

    Parameters
    ----------
    samples
        What to draw from.
    crop, augment, sampling
        The box, the strengths, and how often each sample comes.
    batch
        Samples a step on this rank.
    shuffle
        True for training: a new order and new slices every epoch. False: every sample once, in the
        order of ``samples``, with the evenly spaced or the middle slices.
    seed, rank, world
        The ranks of one seed share the samples of an epoch without loss or doubling.

    Raises
    ------
    InputError
        If the batch, rank or world cannot be, or all slices of a series are too many.
    """

    def __init__(
        self,
        samples: Samples,
        crop: CropConfig,
        augment: AugmentConfig,
        *,
        batch: int,
        shuffle: bool,
        sampling: SamplingConfig | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check_sizes(samples, crop, batch=batch, rank=rank, world=world)
        self.samples = samples
        self.crop = crop if shuffle else crop.model_copy(update={"centre": "image"})
        self.augment = augment
        self.sampling = sampling if sampling and shuffle else SamplingConfig()
        self.batch = batch
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch_size = epoch_size(samples, self.sampling)
        self._orders: dict[int, Order] = {}

    @property
    def steps(self) -> int:
        """Steps an epoch, the same for every rank."""
        return -(-self.epoch_size // (self.batch * self.world))

    def requests(self, epoch: int, step: int) -> list[Request]:
        """Return this rank's part of one step, as many requests on every rank.

        The last may be a filler. All views of a step hold the same number of slices.
        """
        places = self._places(step)
        requests = [self.request(epoch, place) for place in places[self.rank :: self.world]]
        if len(requests) < -(-len(places) // self.world):
            filler = self.request(epoch, 0)
            unknown = np.full_like(filler.severity, UNKNOWN)
            requests.append(replace(filler, severity=unknown, filler=True))
        return _equally_deep(requests)

    def request(self, epoch: int, place: int) -> Request:
        """Return the sample at a place of an epoch's order, whatever rank and step it falls on."""
        index = int(self._order(epoch)[place])
        # One decision for all series of a study: a patient has one left side.
        mirrors = self._draw_mirrors(epoch, place)
        views = tuple(
            draw_view(
                self.samples,
                index,
                slot,
                self.crop,
                self.augment,
                mirrors=mirrors,
                draws=Draws((self.seed, _VIEW, epoch, place, slot)),
                shuffle=self.shuffle,
            )
            for slot in range(self.samples.row.shape[1])
        )
        severity = self.samples.severity[index]
        exchanged = LEFT_RIGHT in mirrors
        return Request(
            index=index,
            views=views,
            # The only place where targets change sides: with the pixels, by the same decision.
            severity=severity[list(EXCHANGED_CELLS)] if exchanged else severity,
            sides_exchanged=exchanged,
        )

    def mix(self, epoch: int, step: int, n: int) -> Mix | None:
        """Return how the ``n`` samples of this rank's step are mixed with each other, if at all.

        A filler stays as it is.
        """
        rng = np.random.default_rng((self.seed, _MIX, epoch, step, self.rank))
        known = min(n, len(self._places(step)[self.rank :: self.world]))
        drawn = draw_mix(self.augment, known, (self.crop.height, self.crop.width), rng)
        return None if drawn is None else drawn.filled_to(n)

    def _places(self, step: int) -> range:
        """Return the places of an epoch's order that the ranks share out in a step."""
        first = step * self.batch * self.world
        return range(first, min(first + self.batch * self.world, self.epoch_size))

    def _draw_mirrors(self, epoch: int, place: int) -> list[int]:
        """Draw which of the patient's axes are mirrored: left-right, front-back, head-foot."""
        augment = self.augment
        chances = augment.side_exchange, augment.mirror_front_back, augment.mirror_head_foot
        if not any(chances):
            return []
        draws = Draws((self.seed, _PATIENT, epoch, place))
        return [axis for axis, chance in enumerate(chances) if draws.happens(chance)]

    def _order(self, epoch: int) -> Order:
        """Return the order of an epoch; those of the last two are kept."""
        order = self._orders.get(epoch)
        if order is None:
            order = self._draw_order(epoch)
            self._orders = dict([*self._orders.items(), (epoch, order)][-2:])
        return order

    def _draw_order(self, epoch: int) -> Order:
        if not self.shuffle:
            return np.arange(len(self.samples))
        rng = np.random.default_rng((self.seed, _ORDER, epoch))
        return draw_order(self.samples, self.sampling, rng)


def _check_sizes(samples: Samples, crop: CropConfig, *, batch: int, rank: int, world: int) -> None:
    """Raise `InputError` for numbers of which no plan can be made."""
    if batch < 1:
        raise InputError(
            what="batch of a plan", got=batch, expected="1 or more", cure="name another batch"
        )
    if not 0 <= rank < world:
        raise InputError(
            what="rank of a plan",
            got=f"rank {rank} of a world of {world}",
            expected="a rank from 0 to world - 1",
            cure="count ranks from 0",
        )
    deepest = int(samples.shape[..., 0].max(initial=0))
    if crop.pick == "all" and len(all_slices(deepest, crop.slices)) > MOST_SLICES:
        raise InputError(
            what="all slices of a series are too many for a sample",
            where="crop.pick",
            got=f"{deepest} slices in multiples of crop.slices = {crop.slices}",
            expected=f"at most {MOST_SLICES}",
            cure="set crop.pick to spread or window",
        )


def _equally_deep(requests: list[Request]) -> list[Request]:
    """Give all views of a step places for as many slices as the deepest has."""
    deepest = max(len(view.slices) for request in requests for view in request.views)
    return [
        replace(request, views=tuple(view.filled_to(deepest) for view in request.views))
        for request in requests
    ]
