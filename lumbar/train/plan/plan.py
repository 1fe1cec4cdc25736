"""The plan of an epoch: samples, slices, crops and augmentation of every step, without pixels.

A plan is a pure function of (seed, epoch, step, rank, world), so a run can resume at any step, and
tests compare integers. All samples of a step are computed at once, as arrays, without torch or
DALI.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int8, Int64

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
"""The axis whose mirror exchanges the sides."""

_ORDER, _PATIENT, _VIEW, _MIX, _SLICE = range(5)
"""Independent streams of random numbers."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to read: a view of each of its series.

    ``index`` is its place in the samples; ``severity`` are its grades after any exchange of sides.
    A ``filler`` gives every rank as many samples per step; all its grades are unknown.
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
        The samples to choose from.
    crop, augment, sampling
        The box, the augmentation, and how often each sample comes.
    batch
        Samples per step on this rank.
    shuffle
        True for training: a new order and new slices every epoch. False: every sample once, in
        order, with the evenly spaced or the middle slices.
    seed, rank, world
        The ranks of one seed share the samples of an epoch; each sample goes to one rank.

    Raises
    ------
    InputError
        If batch, rank or world are out of range, or ``crop.pick`` gives too many slices.
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
        """Steps per epoch, the same for every rank."""
        return -(-self.epoch_size // (self.batch * self.world))

    def requests(self, epoch: int, step: int) -> list[Request]:
        """Return this rank's requests of one step: as many as on every other rank.

        The last may be a filler. All views of a step have the same number of slices.
        """
        places = self._places(step)
        mine = list(places[self.rank :: self.world])
        missing = len(mine) < -(-len(places) // self.world)
        return self._at(epoch, [*mine, 0] if missing else mine, filled_up=missing)

    def request(self, epoch: int, place: int) -> Request:
        """Return the sample at a place of an epoch's order, whatever its rank and step."""
        (request,) = self._at(epoch, [place])
        return request

    def _at(self, epoch: int, places: list[int], *, filled_up: bool = False) -> list[Request]:
        """Return the requests at some places of an epoch; ``filled_up``: the last is a filler."""
        here = np.array(places)
        index = self._order(epoch)[here]
        # Per study, not per series: a patient has one left side.
        mirrors = self._mirrors(epoch, here)
        has_dropout = self.augment.slice_dropout > 0
        views = sample_views(
            self.samples,
            index,
            self.crop,
            self.augment,
            mirrors=mirrors,
            uniform=UniformNumbers(self._of_views.of(epoch, here)),
            left_out=self._of_slices.of(epoch, here).T if has_dropout else None,
            shuffle=self.shuffle,
        )
        exchanged = mirrors[:, LEFT_RIGHT]
        severity = self.samples.severity[index]
        # The only place where left and right targets are exchanged, together with the pixels.
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
        """Return how the ``n`` samples of this rank's step are mixed; None where mixing is off.

        A filler stays as it is.
        """
        rng = np.random.default_rng((self.seed, _MIX, epoch, step, self.rank))
        known = min(n, len(self._places(step)[self.rank :: self.world]))
        mix = sample_mix(self.augment, known, (self.crop.height, self.crop.width), rng)
        return None if mix is None else mix.filled_to(n)

    def _places(self, step: int) -> range:
        """Return the places of an epoch's order that belong to a step, of all ranks."""
        first = step * self.batch * self.world
        return range(first, min(first + self.batch * self.world, self.epoch_size))

    def _mirrors(self, epoch: int, places: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "n 3"]:
        """Sample which of the patient's axes are mirrored: left-right, front-back, head-foot."""
        chances = [getattr(self.augment, axis) for axis in PATIENT_AXES]
        if not any(chances):
            return np.zeros((len(places), len(chances)), bool)
        uniform = UniformNumbers(self._of_patients.of(epoch, places))
        return np.stack([uniform.happens(chance) for chance in chances], axis=1)

    def _order(self, epoch: int) -> Order:
        """Return the order of an epoch; the last two orders are kept."""
        if not self.shuffle:
            return np.arange(len(self.samples))
        order = self._orders.get(epoch)
        if order is None:
            rng = np.random.default_rng((self.seed, _ORDER, epoch))
            order = sample_order(self.samples, self.sampling, rng)
            self._orders = dict([*self._orders.items(), (epoch, order)][-2:])
        return order


def _check_sizes(samples: Samples, crop: CropConfig, *, batch: int, rank: int, world: int) -> None:
    """Raise `InputError` for sizes that no plan can have."""
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
