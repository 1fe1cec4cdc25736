import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.mixup import sample_mix

SIZE = (40, 60)


def sample(seed, n=8, size_hw=SIZE, **strengths):
    augment = AugmentConfig(**strengths)
    return sample_mix(augment, n, size_hw, np.random.default_rng(seed))


def test_nothing_is_mixed_unless_it_is_switched_on():
    assert sample(0) is None


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 20),
    mixup=st.floats(0.1, 5) | st.just(0.0),
    cutmix=st.floats(0.1, 5) | st.just(0.0),
)
def test_each_sample_is_mixed_into_one_and_keeps_a_share(seed, n, mixup, cutmix):
    mix = sample(seed, n, mixup=mixup, cutmix=cutmix)
    if mixup == cutmix == 0:
        assert mix is None
        return
    assert sorted(mix.partner.tolist()) == list(range(n))
    assert mix.share.shape == (n,)
    assert (mix.share >= 0).all()
    assert (mix.share <= 1).all()
    if cutmix == 0:
        assert mix.boxes is None
    elif mixup == 0:
        assert len(mix.boxes) == n


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(16, 300), st.integers(16, 300)),
    alpha=st.floats(0.1, 5),
)
def test_the_share_is_the_area_outside_of_the_box(seed, size, alpha):
    mix = sample(seed, size_hw=size, cutmix=alpha)
    for (h0, w0, h1, w1), share in zip(mix.boxes, mix.share, strict=True):
        assert 0 <= h0 <= h1 <= size[0]
        assert 0 <= w0 <= w1 <= size[1]
        outside = np.ones(size, bool)
        outside[h0:h1, w0:w1] = False
        assert share == pytest.approx(outside.mean(), abs=1e-6)


def test_shares_are_of_the_beta_distribution():
    even = np.concatenate([sample(seed, mixup=1.0).share for seed in range(300)])
    assert np.quantile(even, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.04)
    steep = np.concatenate([sample(seed, mixup=0.2).share for seed in range(300)])
    assert steep.mean() == pytest.approx(0.5, abs=0.04)
    # The variance of Beta(a, a) is 1 / (4 * (2a + 1)).
    assert steep.var() == pytest.approx(1 / 5.6, abs=0.015)


def test_boxes_have_the_shape_of_the_crop_and_reach_every_place():
    boxes = np.array([box for seed in range(400) for box in sample(seed, cutmix=1.0).boxes])
    h0, w0, h1, w1 = boxes.T
    whole = (h0 > 0) & (w0 > 0) & (h1 < SIZE[0]) & (w1 < SIZE[1])
    assert whole.sum() > 100
    # Each edge is rounded to a pixel.
    assert (w1 - w0)[whole] == pytest.approx((h1 - h0)[whole] * 1.5, abs=2.51)
    covered = np.zeros(SIZE)
    for top, left, bottom, right in boxes:
        covered[top:bottom, left:right] += 1
    assert covered.min() > 0
    assert covered.max() < len(boxes)


def test_with_both_on_a_batch_has_one_or_the_other_and_each_comes():
    kinds = [sample(seed, mixup=0.4, cutmix=1.0).boxes is None for seed in range(400)]
    assert np.mean(kinds) == pytest.approx(0.5, abs=0.08)


def test_each_sample_has_a_share_of_its_own():
    assert len(set(sample(0, mixup=1.0).share.tolist())) == 8
    assert len(set(sample(0, cutmix=1.0).boxes)) > 4


def test_a_mix_is_a_function_of_its_generator():
    one, again, other = (sample(seed, mixup=0.4).share.tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_samples_behind_those_that_are_mixed_stay_as_they_are():
    for augment in (AugmentConfig(mixup=1.0), AugmentConfig(cutmix=1.0)):
        for n in (0, 1, 3):
            sampled = sample_mix(augment, n, (20, 30), np.random.default_rng(1))
            filled = sampled.filled_to(5)
            assert filled.partner.tolist() == [*sampled.partner.tolist(), *range(n, 5)]
            assert filled.share.tolist() == [*sampled.share.tolist(), *[1.0] * (5 - n)]
            assert filled.share.dtype == np.float32
            if sampled.boxes is not None:
                assert filled.boxes == (*sampled.boxes, *[(0, 0, 0, 0)] * (5 - n))
