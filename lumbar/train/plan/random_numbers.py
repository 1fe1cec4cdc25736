"""Uniform random numbers of the samples of an epoch, generated in blocks of many samples.

One generator per sample would take longer than everything that uses its numbers.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt32

PLACES = 256
"""Places of an epoch's order whose numbers are generated together."""
KEPT = 2
"""Blocks that a stream keeps: a step may span two."""


class Stream:
    """Uniform numbers from 0 to 1 for every place of every epoch.

    The numbers of a place depend on (seed, stream, epoch, slot, place) alone, not on the other
    places of a step. The first numbers of a place do not depend on ``count``. Memory does not grow
    with the epoch.

    Parameters
    ----------
    seed, stream
        Seed the generators; the streams of one seed are independent.
    count
        Numbers per slot of a place.
    slots
        Series per sample, each with its own numbers.
    """

    def __init__(self, seed: int, stream: int, *, count: int, slots: int = 1) -> None:
        self._seed = seed
        self._stream = stream
        self._count = count
        self._slots = slots
        self._kept: dict[tuple[int, int], Float64[np.ndarray, "k p s"]] = {}

    def of(self, epoch: int, places: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "k v"]:
        """Return the numbers of some places of an epoch, one column per slot of each place."""
        block, inside = np.divmod(places, PLACES)
        found = np.empty((self._count, len(places), self._slots))
        for number in np.unique(block).tolist():
            here = block == number
            found[:, here] = self._block(epoch, number)[:, inside[here]]
        return found.reshape(self._count, -1)

    def _block(self, epoch: int, number: int) -> Float64[np.ndarray, "k p s"]:
        """Return the numbers of a block of places; the last blocks are kept."""
        found = self._kept.get((epoch, number))
        if found is None:
            found = self._generate(epoch, number)
            # A new dictionary, since another thread may be reading the old one.
            self._kept = dict([*self._kept.items(), ((epoch, number), found)][-KEPT:])
        return found

    def _generate(self, epoch: int, number: int) -> Float64[np.ndarray, "k p s"]:
        seeds = [(self._seed, self._stream, epoch, slot, number) for slot in range(self._slots)]
        of_slots = [np.random.default_rng(seed).random((self._count, PLACES)) for seed in seeds]
        return np.stack(of_slots, axis=-1)


class UniformNumbers:
    """The uniform numbers of some views, taken in order: each call takes one number per view.

    Every view takes the same numbers in the same order, whatever is switched on, so that switching
    one step on does not change the others.
    """

    def __init__(self, numbers: Float64[np.ndarray, "k v"]) -> None:
        self._numbers = iter(numbers)

    def unit(self) -> Float64[np.ndarray, " v"]:
        """Return numbers from 0 to 1."""
        return next(self._numbers)

    def within(self, reach: float) -> Float64[np.ndarray, " v"]:
        """Return numbers from ``-reach`` to ``reach``."""
        return reach * (2 * self.unit() - 1)

    def factor(self, reach: float) -> Float64[np.ndarray, " v"]:
        """Return factors from ``1 / (1 + reach)`` to ``1 + reach``, as often above 1 as below."""
        return (1 + reach) ** self.within(1.0)

    def happens(self, probability: float) -> Bool[np.ndarray, " v"]:
        """Return true with a probability."""
        return self.unit() < probability

    def bits(self) -> UInt32[np.ndarray, " v"]:
        """Return 32 random bits per view."""
        return (self.unit() * 2**32).astype(np.uint32)
