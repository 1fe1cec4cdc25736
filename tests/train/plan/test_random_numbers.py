"""The uniform numbers of a place are its own, whoever asks for them, and when."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.train.plan.random_numbers import KEPT, PLACES, Stream, UniformNumbers

LAST = 5 * PLACES


def of(places, *, seed=1, stream=2, epoch=3, count=4, slots=2):
    return Stream(seed, stream, count=count, slots=slots).of(epoch, np.array(places))


@given(places=st.lists(st.integers(0, LAST), min_size=1, max_size=40), slots=st.integers(1, 3))
def test_a_place_has_its_numbers_whatever_the_others(places, slots):
    joint = of(places, slots=slots)
    assert joint.shape == (4, len(places) * slots)
    alone = [of([place], slots=slots) for place in places]
    assert (joint == np.hstack(alone)).all()


def test_more_numbers_or_slots_change_none_of_the_others():
    places = [0, 7, PLACES - 1, PLACES]
    few, many = of(places, count=3), of(places, count=30)
    assert (many[:3] == few).all()
    assert (of(places, slots=1) == of(places, slots=3)[:, ::3]).all()


@pytest.mark.parametrize("changed", ["seed", "stream", "epoch"])
def test_seeds_streams_and_epochs_have_nothing_in_common(changed):
    options = {"seed": 1, "stream": 1, "epoch": 1}
    sampled = [of(range(2 * PLACES), **options | {changed: value}) for value in (0, 1, 2, 300)]
    assert len(np.unique(sampled)) == 4 * sampled[0].size == 4 * 4 * 2 * 2 * PLACES


def test_numbers_are_uniform_and_independent():
    sampled = of(range(20 * PLACES), count=6, slots=2)
    assert (sampled >= 0).all()
    assert (sampled < 1).all()
    by_number = sampled.reshape(6, -1, 2).transpose(0, 2, 1).reshape(12, -1)
    quantiles = np.quantile(by_number, [0.1, 0.5, 0.9], axis=1)
    assert np.abs(quantiles - [[0.1], [0.5], [0.9]]).max() < 0.025
    assert np.abs(np.corrcoef(by_number) - np.eye(12)).max() < 0.05
    neighbours = np.corrcoef(by_number[0, :-1], by_number[0, 1:])
    assert abs(neighbours[0, 1]) < 0.05


def test_memory_does_not_grow_with_the_epoch():
    stream = Stream(0, 0, count=4, slots=2)
    for first in range(0, 40 * PLACES, 3 * PLACES // 2):
        stream.of(0, np.arange(first, first + 3 * PLACES))
        blocks = stream._kept.values()
        assert len(blocks) <= KEPT
        assert sum(sys.getsizeof(b) for b in blocks) < KEPT * (4 * 2 * PLACES * 8 + 200)


def test_steps_that_follow_each_other_share_a_block(monkeypatch):
    sampled = []
    generate = Stream._generate
    monkeypatch.setattr(Stream, "_generate", lambda *a: sampled.append(a[2]) or generate(*a))
    stream = Stream(0, 0, count=1)
    for first in range(0, 4 * PLACES, 96):
        stream.of(0, np.arange(first, min(first + 96, 4 * PLACES)))
    assert sampled == [0, 1, 2, 3]


# What is made of them.


def test_each_call_takes_one_number_per_view():
    numbers = np.random.default_rng(0).random((3, 5))
    uniform = UniformNumbers(numbers)
    assert all((uniform.unit() == row).all() for row in numbers)
    with pytest.raises(StopIteration):
        uniform.unit()


def test_numbers_fill_their_ranges():
    def uniform():
        return UniformNumbers(np.random.default_rng(0).random((1, 3000)))

    within, factors, bits = uniform().within(3.0), uniform().factor(0.5), uniform().bits()
    assert (within.min(), within.max()) == pytest.approx((-3, 3), abs=0.01)
    assert (factors.min(), factors.max()) == pytest.approx((1 / 1.5, 1.5), abs=0.01)
    assert np.median(factors) == pytest.approx(1, abs=0.02)
    assert bits.dtype == np.uint32
    assert bits.min() < 2**23
    assert bits.max() > 2**32 - 2**23
    assert uniform().happens(0.3).mean() == pytest.approx(0.3, abs=0.03)


def test_a_probability_of_zero_never_happens_and_one_always():
    ends = np.array([[0.0, 0.5, np.nextafter(1.0, 0.0)]])
    assert not UniformNumbers(ends).happens(0.0).any()
    assert UniformNumbers(ends).happens(1.0).all()
    assert UniformNumbers(ends).bits().tolist() == [0, 2**31, 2**32 - 1]
