"""Which samples, which slices, which crop, which numbers: the plan of an epoch.

A plan is a pure function of (seed, epoch, step, rank, world): asking twice gives the same
requests, so a run can start again at any step, and order is tested with integers. All samples of a
step are drawn at once, as arrays. It knows neither torch nor DALI.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import EXCHANGED_CELLS
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.mixup import Mix, sample_mix
from lumbar.train.plan.order import Order, SamplingConfig, epoch_size, sample_order
from lumbar.train.plan.random_numbers import Stream, UniformNumbers
from lumbar.train.plan.samples import Samples
from lumbar.train.plan.slices import MOST_SLICES
from lumbar.train.plan.view import N_UNIFORM, View, most_slices, sample_views

PATIENT_AXES = ("side_exchange", "mirror_front_back", "mirror_head_foot")
"""The keys of `AugmentConfig` that mirror the patient's axes: left-right, front-back, head-foot."""
LEFT_RIGHT = 0
"""The axis whose mirror image exchanges the sides."""

_ORDER, _PATIENT, _VIEW, _MIX, _SLICE = range(5)
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
        slots = samples.row.shape[1]
        self._of_patients = Stream(seed, _PATIENT, count=len(PATIENT_AXES))
        self._of_views = Stream(seed, _VIEW, count=N_UNIFORM, slots=slots)
        self._of_slices = Stream(seed, _SLICE, count=most_slices(samples, crop), slots=slots)

    @property
    def steps(self) -> int:
        """Steps an epoch, the same for every rank."""
        return -(-self.epoch_size // (self.batch * self.world))

    def requests(self, epoch: int, step: int) -> list[Request]:
        """Return this rank's part of one step, as many requests on every rank.

        The last may be a filler. All views of a step hold the same number of slices.
        """
        places = self._places(step)
        mine = list(places[self.rank :: self.world])
        missing = len(mine) < -(-len(places) // self.world)
        return self._draw(epoch, [*mine, 0] if missing else mine, filled_up=missing)

    def request(self, epoch: int, place: int) -> Request:
        """Return the sample at a place of an epoch's order, whatever rank and step it falls on."""
        (request,) = self._draw(epoch, [place])
        return request

    def _draw(self, epoch: int, places: list[int], *, filled_up: bool = False) -> list[Request]:
        """Draw the samples at some places of an epoch; ``filled_up`` with a filler, the last."""
        here = np.array(places)
        index = self._order(epoch)[here]
        # One decision for all series of a study: a patient has one left side.
        mirrors = self._draw_mirrors(epoch, here)
        views = sample_views(
            self.samples,
            index,
            self.crop,
            self.augment,
            mirrors=mirrors,
            uniform=UniformNumbers(self._of_views.of(epoch, here)),
            left_out=self._draw_left_out(epoch, here),
            shuffle=self.shuffle,
        )
        exchanged = mirrors[:, LEFT_RIGHT]
        severity = self.samples.severity[index]
        # The only place where targets change sides: with the pixels, by the same decision.
        severity[exchanged] = severity[exchanged][:, EXCHANGED_CELLS]
        if filled_up:
            severity[-1] = UNKNOWN
        slots = self.samples.row.shape[1]
        return [
            Request(
                index=of_one,
                views=tuple(views[number * slots : (number + 1) * slots]),
                severity=severity[number],
                sides_exchanged=sides_exchanged,
                filler=filled_up and number == len(places) - 1,
            )
            for number, (of_one, sides_exchanged) in enumerate(
                zip(index.tolist(), exchanged.tolist(), strict=True)
            )
        ]

    def mix(self, epoch: int, step: int, n: int) -> Mix | None:
        """Return how the ``n`` samples of this rank's step are mixed with each other, if at all.

        A filler stays as it is.
        """
        rng = np.random.default_rng((self.seed, _MIX, epoch, step, self.rank))
        known = min(n, len(self._places(step)[self.rank :: self.world]))
        drawn = sample_mix(self.augment, known, (self.crop.height, self.crop.width), rng)
        return None if drawn is None else drawn.filled_to(n)

    def _places(self, step: int) -> range:
        """Return the places of an epoch's order that the ranks share out in a step."""
        first = step * self.batch * self.world
        return range(first, min(first + self.batch * self.world, self.epoch_size))

    def _draw_mirrors(self, epoch: int, places: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "n 3"]:
        """Draw which of the patient's axes are mirrored: left-right, front-back, head-foot."""
        chances = [getattr(self.augment, axis) for axis in PATIENT_AXES]
        if not any(chances):
            return np.zeros((len(places), len(chances)), bool)
        uniform = UniformNumbers(self._of_patients.of(epoch, places))
        return np.stack([uniform.happens(chance) for chance in chances], axis=1)

    def _draw_left_out(
        self, epoch: int, places: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, "v d"] | None:
        """Draw the numbers by which slices are left out, if any are."""
        return self._of_slices.of(epoch, places).T if self.augment.slice_dropout > 0 else None

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
        return sample_order(self.samples, self.sampling, rng)


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
    if most_slices(samples, crop) > MOST_SLICES:
        deepest = int(samples.shape[..., 0].max())
        raise InputError(
            what="all slices of a series are too many for a sample",
            where="crop.pick",
            got=f"{deepest} slices in multiples of crop.slices = {crop.slices}",
            expected=f"at most {MOST_SLICES}",
            cure="set crop.pick to spread or window",
        )
