import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.train.plan.slices import (
    NO_SLICE,
    all_slices,
    drop_slices,
    padded,
    reverse_slices,
    spread_slices,
    window_slices,
)

DEPTHS = st.integers(1, 300)
WANTED = st.integers(1, 64)


@given(depth=DEPTHS, wanted=WANTED, within=st.floats(0, 1))
def test_spread_slices_are_sorted_and_each_is_from_its_stretch(depth, wanted, within):
    slices = spread_slices(depth, wanted, within)
    if depth <= wanted:
        assert slices.tolist() == [*range(depth), *[NO_SLICE] * (wanted - depth)]
        return
    edges = np.arange(wanted + 1) * depth / wanted
    assert len(slices) == wanted
    assert (np.diff(slices) >= 1).all(), "a slice that comes twice"
    assert (slices >= np.floor(edges[:-1])).all()
    # A shift of exactly one may reach the first slice of the next stretch.
    assert (slices <= np.floor(edges[1:])).all()
    assert slices[-1] < depth


@given(depth=DEPTHS, wanted=WANTED)
def test_without_a_shift_spread_slices_are_the_middles_of_their_stretches(depth, wanted):
    slices = spread_slices(depth, wanted)
    if depth > wanted:
        middles = (np.arange(wanted) + 0.5) * depth / wanted
        assert np.abs(slices + 0.5 - middles).max() <= 0.5


def test_the_shift_reaches_every_slice():
    shifts = np.linspace(0, 1, 50, endpoint=False)
    seen = {s for within in shifts for s in spread_slices(40, 8, within).tolist()}
    assert seen == set(range(40))


def test_the_largest_random_number_stays_inside_the_stack():
    assert spread_slices(40, 16, np.nextafter(1.0, 0.0)).max() == 39


@given(depth=DEPTHS, wanted=WANTED, middle=st.floats(-20, 320))
def test_a_window_is_of_neighbours_and_as_near_to_its_middle_as_the_stack_lets_it(
    depth, wanted, middle
):
    slices = window_slices(depth, wanted, middle)
    there = slices[slices != NO_SLICE]
    assert len(slices) == wanted
    assert len(there) == min(depth, wanted)
    assert there.tolist() == list(range(there[0], there[0] + len(there)))
    assert (slices[len(there) :] == NO_SLICE).all()
    assert there[0] >= 0
    assert there[-1] < depth
    reachable = np.clip(middle, (len(there) - 1) / 2, depth - 1 - (len(there) - 1) / 2)
    assert abs(there.mean() - reachable) <= 0.5


@pytest.mark.parametrize(
    ("middle", "expected"),
    [(10.0, [8, 9, 10, 11, 12]), (9.6, [8, 9, 10, 11, 12]), (0.0, range(5)), (30.0, range(15, 20))],
)
def test_a_window_lies_around_its_middle(middle, expected):
    assert window_slices(20, 5, middle).tolist() == list(expected)


@given(depth=DEPTHS, bucket=st.integers(1, 64))
def test_all_slices_fill_whole_buckets(depth, bucket):
    slices = all_slices(depth, bucket)
    assert len(slices) % bucket == 0
    assert depth <= len(slices) < depth + bucket
    assert slices.tolist() == [*range(depth), *[NO_SLICE] * (len(slices) - depth)]


def test_padding_leaves_what_it_fills_up_as_it_was():
    slices = np.array([3, 5], np.int32)
    assert padded(slices, 4).tolist() == [3, 5, NO_SLICE, NO_SLICE]
    assert slices.tolist() == [3, 5]
    assert padded(np.arange(0), 2).tolist() == [NO_SLICE, NO_SLICE]


# Many stacks at once.

STACKS = st.lists(st.tuples(DEPTHS, st.floats(0, 1), st.floats(-20, 320)), min_size=1, max_size=9)


@given(stacks=STACKS, wanted=WANTED)
def test_the_slices_of_many_stacks_are_those_of_each(stacks, wanted):
    depth, within, middle = map(np.array, zip(*stacks, strict=True))
    spread, window = spread_slices(depth, wanted, within), window_slices(depth, wanted, middle)
    every = all_slices(depth, wanted)
    assert every.shape[1] == -(-depth.max() // wanted) * wanted
    for n, (of_one, shift, place) in enumerate(stacks):
        assert spread[n].tolist() == spread_slices(of_one, wanted, shift).tolist()
        assert window[n].tolist() == window_slices(of_one, wanted, place).tolist()
        assert every[n].tolist() == padded(np.arange(of_one), every.shape[1]).tolist()


@given(depths=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_slices_of_the_least_chances_are_left_out_and_one_stays(depths, seed):
    slices = all_slices(np.array([*depths, 9]), 3)
    chance = np.random.default_rng(seed).random((len(slices), 12))
    found = drop_slices(slices, chance, 0.7)
    assert found.shape == slices.shape
    for before, after, of_each in zip(slices.tolist(), found.tolist(), chance, strict=True):
        there = [d for d in before if d != NO_SLICE]
        best = max(there, key=lambda d: of_each[d], default=None)
        kept = [d for d in there if of_each[d] >= 0.7 or d == best]
        assert after == [*kept, *[NO_SLICE] * (len(before) - len(kept))]
    assert (drop_slices(slices, chance, 0.0) == slices).all()


@given(depths=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_only_the_slices_that_are_there_are_turned_round(depths, seed):
    slices = all_slices(np.array([*depths, 9]), 2)
    turned = np.random.default_rng(seed).random(len(slices)) < 0.5
    found = reverse_slices(slices, turned)
    for before, after, is_turned in zip(slices.tolist(), found.tolist(), turned, strict=True):
        there = [d for d in before if d != NO_SLICE]
        filling = [NO_SLICE] * (len(before) - len(there))
        assert after == ([*there[::-1], *filling] if is_turned else before)
    assert (reverse_slices(found, turned) == slices).all()
