from collections import Counter
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.cache.errors import InputError
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.order import SamplingConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.random_numbers import PLACES
from lumbar.train.plan.slices import NO_SLICE

CROP = CropConfig(slices=6, height=32, width=24, pixel_mm=2.0)
EVERYTHING = AugmentConfig(
    side_exchange=0.5,
    mirror_front_back=0.5,
    mirror_head_foot=0.5,
    slice_dropout=0.3,
    low_resolution=1.0,
    gamma=0.3,
    cutout=0.3,
    mixup=0.4,
)


def contents(value):
    """Return a request, or a part of it, as values that compare."""
    if is_dataclass(value):
        return {field.name: contents(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [contents(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def unfilled(request):
    """Return a request's contents without the filling of its step."""
    found = contents(request)
    for view in found["views"]:
        n = len([s for s in view["slices"] if s != NO_SLICE])
        view["slices"], view["position"] = view["slices"][:n], view["position"][:n]
    return found


@pytest.fixture(scope="module")
def make_plan(make_samples):
    """Return a function that makes a plan of random samples with everything on."""

    def make(n=11, slots=1, augment=EVERYTHING, crop=CROP, by="series", **options):
        options = {"batch": 3, "shuffle": True, "sampling": SamplingConfig(by=by)} | options
        samples = make_samples(n, slots, absent=0.3, studies=max(1, n // 2))
        return Plan(samples, crop, augment, **options)

    return make


def in_places(plans, epoch):
    """Return the requests of an epoch over all ranks by their place in its order."""
    world, batch = len(plans), plans[0].batch
    found = {}
    for rank, plan in enumerate(plans):
        for step in range(plan.steps):
            requests = plan.requests(epoch, step)
            assert 1 <= len(requests) <= batch
            # Ranks that take a batch in parts need as many of them.
            assert len(requests) == len(plans[0].requests(epoch, step))
            assert len({len(v.slices) for r in requests for v in r.views}) == 1
            for number, request in enumerate(requests):
                if request.filler:
                    assert number == len(requests) - 1
                    assert set(request.severity.tolist()) == {-1}
                else:
                    place = step * batch * world + rank + number * world
                    assert place not in found
                    found[place] = request
    return found


BY = st.sampled_from(["series", "study", "severity"])
WORLDS = st.sampled_from([1, 2, 4, 8])


@settings(max_examples=80)
@given(
    n=st.integers(1, 40),
    world=WORLDS,
    batch=st.integers(1, 9),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
    by=BY,
)
def test_an_epoch_has_every_place_once_over_all_ranks(
    make_plan, n, world, batch, shuffle, epoch, by
):
    options = {"batch": batch, "shuffle": shuffle, "by": by, "augment": AugmentConfig()}
    plans = [make_plan(n, rank=rank, world=world, **options) for rank in range(world)]
    assert len({plan.steps for plan in plans}) == 1
    found = in_places(plans, epoch)
    samples = plans[0].samples
    assert sorted(found) == list(range(plans[0].epoch_size))
    sampled = [found[place].index for place in sorted(found)]
    if not shuffle:
        assert sampled == list(range(n))
    elif by == "series":
        assert sorted(sampled) == list(range(n))
    elif by == "study":
        assert sorted(samples.study_id[i] for i in sampled) == sorted(set(samples.study_id))
    else:
        share = samples.worst((1.0, 2.0, 4.0))
        share *= n / share.sum()
        counts = Counter(sampled)
        for index in range(n):
            assert np.floor(share[index] - 1e-9) <= counts[index] <= np.ceil(share[index] + 1e-9)


@settings(max_examples=25)
@given(
    n=st.integers(1, 24),
    slots=st.sampled_from([1, 3]),
    world=WORLDS,
    batch=st.integers(1, 6),
    epoch=st.integers(0, 3),
    by=BY,
    pick=st.sampled_from(["spread", "window", "all"]),
    seed=st.integers(0, 2**40),
)
def test_a_sample_is_the_same_on_whichever_rank_and_batch_it_falls(
    make_plan, n, slots, world, batch, epoch, by, pick, seed
):
    crop = CROP.model_copy(update={"pick": pick})
    options = {"slots": slots, "crop": crop, "by": by, "seed": seed}
    alone = make_plan(n, batch=1, **options)
    plans = [make_plan(n, batch=batch, rank=rank, world=world, **options) for rank in range(world)]
    for place, request in in_places(plans, epoch).items():
        expected = alone.request(epoch, place)
        assert unfilled(request) == unfilled(expected)
        if pick != "all":
            assert contents(request) == contents(expected)


def test_samples_are_the_same_across_blocks_of_random_numbers(make_plan):
    n = 2 * PLACES + 40
    options = {"crop": CROP.model_copy(update={"pick": "window"}), "seed": 8}
    alone = make_plan(n, batch=1, **options)
    expected = [contents(alone.request(2, place)) for place in range(0, n, 5)]
    assert len({str(view["matrix"]) for r in expected for view in r["views"]}) == len(expected)
    for world, batch in ((1, n), (1, 96), (3, 60)):
        plans = [make_plan(n, batch=batch, rank=r, world=world, **options) for r in range(world)]
        found = in_places(plans, 2)
        assert [contents(found[place]) for place in range(0, n, 5)] == expected
        # Started in the middle, where no earlier step was computed.
        last = make_plan(n, batch=batch, **options)
        first = (last.steps - 1) * batch
        sampled = [contents(r) for r in last.requests(2, last.steps - 1)]
        assert sampled == [contents(alone.request(2, place)) for place in range(first, n)]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("by", ["series", "study", "severity"])
def test_a_plan_is_a_function_of_its_arguments(make_plan, slots, by):
    plan = make_plan(seed=5, slots=slots, by=by)
    steps = [(epoch, step) for epoch in range(4) for step in range(plan.steps)]
    first = {key: [contents(r) for r in plan.requests(*key)] for key in steps}
    mixes = {key: contents(plan.mix(*key, 3)) for key in steps}
    for again in (plan, make_plan(seed=5, slots=slots, by=by)):
        for i in np.random.default_rng(0).permutation(len(steps)):
            assert [contents(r) for r in again.requests(*steps[i])] == first[steps[i]]
            assert contents(again.mix(*steps[i], 3)) == mixes[steps[i]]
    assert len({str(mix) for mix in mixes.values()}) == len(steps)


def test_epochs_and_seeds_differ_when_shuffled(make_plan):
    def order(plan, epoch):
        return [r.index for step in range(plan.steps) for r in plan.requests(epoch, step)]

    orders = [
        order(make_plan(30, seed=seed, batch=10), epoch) for seed in range(3) for epoch in range(3)
    ]
    assert len(set(map(tuple, orders))) == 9
    still = make_plan(30, shuffle=False, by="severity")
    assert order(still, 0) == order(still, 7) == list(range(30))


def test_each_sample_of_each_epoch_has_numbers_of_its_own(make_plan):
    plans = [make_plan(6, slots=2, batch=6, seed=seed) for seed in range(3)]
    views = [v for p in plans for e in range(3) for r in p.requests(e, 0) for v in r.views]
    assert len({view.intensity.key for view in views}) == len(views) == 108
    assert len({tuple(view.matrix.ravel()) for view in views}) == 108


def test_ranks_mix_their_batches_differently(make_plan):
    plans = [make_plan(seed=1, rank=rank, world=2) for rank in range(2)]
    mixes = [plan.mix(0, 0, 3).share.tolist() for plan in plans]
    assert mixes[0] != mixes[1]
    assert make_plan(augment=AugmentConfig()).mix(0, 0, 3) is None


def test_a_filler_does_not_touch_the_samples_it_borrows(make_plan):
    plan = make_plan(1, rank=1, world=2)
    (filler,) = plan.requests(0, 0)
    assert filler.filler
    assert (filler.severity == -1).all()
    assert (plan.samples.severity[0] != -1).any()


def test_a_request_does_not_touch_the_samples_it_is_of(make_plan):
    plan = make_plan(augment=AugmentConfig(side_exchange=1.0))
    kept = plan.samples.severity.copy()
    for request in plan.requests(0, 0):
        assert request.sides_exchanged
    assert (plan.samples.severity == kept).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch of a plan; got 0"),
        ({"rank": -1}, "rank -1 of a world of 1"),
        ({"rank": 2, "world": 2}, "rank 2 of a world of 2"),
        ({"world": 0}, "rank 0 of a world of 0"),
    ],
)
def test_sizes_of_which_no_plan_can_be_made_are_refused(make_plan, options, message):
    with pytest.raises(InputError, match=message):
        make_plan(**options)


def test_all_slices_of_a_series_that_is_too_deep_are_refused(make_samples):
    crop = CropConfig(slices=1000, pick="all")
    samples = make_samples(3, depths=(1001, 1003))
    with pytest.raises(InputError, match=r"in multiples of crop\.slices = 1000; "):
        Plan(samples, crop, EVERYTHING, batch=1, shuffle=False)
    few = crop.model_copy(update={"slices": 8})
    assert Plan(samples, few, EVERYTHING, batch=1, shuffle=False).steps == 3


def test_no_samples_are_no_steps(make_plan):
    assert make_plan(0).steps == 0


@pytest.mark.parametrize("slots", [1, 3])
def test_all_slices_of_a_step_are_filled_to_the_deepest(make_plan, slots):
    crop = CROP.model_copy(update={"pick": "all"})
    plan = make_plan(12, slots, AugmentConfig(), crop, batch=4)
    depths = set()
    for step in range(plan.steps):
        requests = plan.requests(0, step)
        views = [(r.index, slot, v) for r in requests for slot, v in enumerate(r.views)]
        (depth,) = {len(view.slices) for *_, view in views}
        stacks = []
        for index, slot, view in views:
            there = [s for s in view.slices.tolist() if s != NO_SLICE]
            absent = plan.samples.row[index, slot] == -1
            stacks.append(0 if absent else int(plan.samples.shape[index, slot, 0]))
            assert there == list(range(stacks[-1]))
            assert len(view.position) == depth
            assert not view.position[len(there) :].any()
        # No deeper than the deepest that is there: an absent series has no depth.
        assert depth == -(-max(stacks) // 6) * 6
        depths.add(depth)
    assert len(depths) > 1


def test_every_view_of_a_study_is_mirrored_or_none(make_plan):
    options = {
        "slots": 3,
        "augment": AugmentConfig.none().model_copy(update={"side_exchange": 0.5}),
    }
    plan = make_plan(24, batch=24, **options)
    plain = make_plan(24, batch=24, slots=3, augment=AugmentConfig.none())
    decisions = []
    for mirror, before in zip(plan.requests(0, 0), plain.requests(0, 0), strict=True):
        differs = {
            contents(one) != contents(other)
            for one, other, row in zip(
                mirror.views, before.views, plan.samples.row[mirror.index], strict=True
            )
            # An absent series of slices has nothing to reverse.
            if row != -1
        }
        assert differs == {mirror.sides_exchanged}
        decisions.append(mirror.sides_exchanged)
    assert set(decisions) == {True, False}


MIRRORS = ("side_exchange", "mirror_front_back", "mirror_head_foot")


def mirrored_axes(request, patient_axes):
    """Tell of each patient axis whether an undistorted view is mirrored along it."""
    (view,) = request.views
    reversed_slices = view.slices[0] > view.slices[1]
    flags = np.array([reversed_slices, view.matrix[1, 1] < 0, view.matrix[0, 0] < 0])
    return flags[patient_axes].tolist()


def test_mirrors_have_their_probabilities_and_are_independent(make_plan):
    chances = (0.3, 0.5, 0.2)
    augment = AugmentConfig(
        **AugmentConfig.none().model_dump() | dict(zip(MIRRORS, chances, strict=True))
    )
    plan = make_plan(20, augment=augment, batch=20)
    requests = [request for epoch in range(60) for request in plan.requests(epoch, 0)]
    flags = [mirrored_axes(r, plan.samples.patient_axes[r.index, 0]) for r in requests]
    assert [r.sides_exchanged for r in requests] == [flag for flag, *_ in flags]
    assert np.mean(flags, axis=0) == pytest.approx(chances, abs=0.04)
    assert np.abs(np.corrcoef(np.transpose(flags)) - np.eye(3)).max() < 0.08


@pytest.mark.parametrize("switched", [*MIRRORS, "slice_dropout", "mixup", "cutmix", "cutout"])
def test_switching_a_step_on_changes_no_other_step_of_the_plan(make_plan, switched):
    mirrors = dict.fromkeys(MIRRORS, 0.5)
    rest = {"scale": 0.1, "noise": 0.2, "slice_dropout": 0.3, "probability": 1.0, **mirrors}
    rest = AugmentConfig.none().model_dump() | rest
    without = AugmentConfig(**rest | {switched: 0.0})
    with_it = AugmentConfig(**rest | {switched: 0.6})
    plans = [make_plan(20, augment=augment, batch=20) for augment in (without, with_it)]
    n_changed = 0
    for before, after in zip(*(plan.requests(0, 0) for plan in plans), strict=True):
        ((one,), (other,)) = before.views, after.views
        n_changed += contents(before) != contents(after)
        assert before.index == after.index
        assert one.intensity.noise == other.intensity.noise
        assert one.intensity.key == other.intensity.key
        axes = plans[0].samples.patient_axes[before.index, 0]
        changed = np.abs(one.matrix[:, :2]) != pytest.approx(np.abs(other.matrix[:, :2]))
        assert not changed, "another zoom"
        if switched in MIRRORS:
            assert sorted(one.slices) == sorted(other.slices)
            kept = [axes[p] for p, mirror in enumerate(MIRRORS) if mirror != switched and axes[p]]
            for axis in kept:
                diagonal = 2 - axis
                signs = np.sign([m[diagonal, diagonal] for m in (one.matrix, other.matrix)])
                assert signs[0] == signs[1]
        else:
            assert (one.matrix == other.matrix).all()
            assert before.severity.tolist() == after.severity.tolist()
        if switched not in (*MIRRORS, "slice_dropout"):
            assert one.slices.tolist() == other.slices.tolist()
    assert (n_changed > 0) == (switched not in {"mixup", "cutmix"})


def test_crops_of_an_evaluation_are_in_the_middle(make_plan):
    crop = CROP.model_copy(update={"centre": "random"})
    options = {"augment": AugmentConfig.none(), "batch": 11, "shuffle": False}
    anywhere, middle = make_plan(crop=crop, **options), make_plan(**options)
    pairs = zip(anywhere.requests(3, 0), middle.requests(0, 0), strict=True)
    for one, other in pairs:
        ((view,), (expected,)) = one.views, other.views
        assert (view.matrix == expected.matrix).all()
        assert (view.slices == expected.slices).all()
