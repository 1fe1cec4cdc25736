from dataclasses import fields

import numpy as np
import pytest
import torch

from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.mixup import Mix, sample_mix
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.batch import make_batch, mixed, one_hot

CPU = torch.device("cpu")
CROP = CropConfig(slices=6, height=16, width=20)


@pytest.fixture
def step(make_samples):
    """Return a function that makes a batch of a step, with random pixels, and what it is of."""

    def make(slots=1, *, n=5, mix=None, dtype=torch.float32, absent=0.0, pick="spread", rank=0):
        samples = make_samples(n, slots, absent=absent, depths=(3, 14))
        crop = CROP.model_copy(update={"pick": pick})
        plan = Plan(
            samples, crop, AugmentConfig(), batch=n, shuffle=True, rank=rank, world=rank + 1
        )
        requests = plan.requests(0, 0)
        views = [view for request in requests for view in request.views]
        rng = np.random.default_rng(0)
        image = rng.normal(size=(len(views), len(views[0].slices), 16, 20)).astype(np.float32)
        for picture, view in zip(image, views, strict=True):
            picture[view.slices < 0] = 0
        pixels = torch.from_numpy(image).to(dtype)
        return make_batch(pixels, requests, samples, device=CPU, mix=mix), samples, pixels

    return make


def shapes(batch):
    return {
        field.name: tuple(getattr(batch, field.name).shape)
        for field in fields(batch)
        if field.name != "requests"
    }


@pytest.mark.parametrize(("slots", "n"), [(1, (5,)), (3, (5, 3))])
def test_a_study_has_an_axis_for_its_series_and_a_series_has_not(step, slots, n):
    batch, *_ = step(slots)
    assert shapes(batch) == {
        "image": (*n, 6, 1, 16, 20),
        "present": (*n, 6),
        "position": (*n, 6),
        "lengths": n,
        "series_type": n,
        "level": (5,),
        "target": (5, 25, 3),
        "known": (5, 25),
    }
    assert len(batch.requests) == 5


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_folded_images_are_channels_last_as_they_are(step, slots, dtype, is_mixed):
    mix = sample_mix(AugmentConfig(mixup=1.0), 5, (16, 20), np.random.default_rng(0))
    batch, *_ = step(slots, dtype=dtype, mix=mix if is_mixed else None)
    folded = batch.image.flatten(0, -4)
    assert folded.shape == (5 * slots * 6, 1, 16, 20)
    assert folded.data_ptr() == batch.image.data_ptr(), "a copy"
    assert folded.is_contiguous(memory_format=torch.channels_last)
    assert batch.image.dtype == dtype


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("pick", ["spread", "all"])
def test_each_place_holds_what_its_view_has(step, slots, pick):
    batch, samples, pixels = step(slots, absent=0.4, pick=pick)
    depth = pixels.shape[1]
    flat = {
        name: getattr(batch, name).reshape(5 * slots, *getattr(batch, name).shape[slots > 1 :][1:])
        for name in ("image", "present", "position", "lengths", "series_type")
    }
    for place in range(5 * slots):
        request = batch.requests[place // slots]
        view = request.views[place % slots]
        here = (view.slices >= 0).tolist()
        assert (flat["image"][place, :, 0] == pixels[place]).all()
        assert flat["present"][place].tolist() == here
        assert here == sorted(here, reverse=True), "filling before a slice"
        assert flat["lengths"][place] == sum(here)
        assert flat["position"][place].tolist() == view.position.tolist()
        assert flat["series_type"][place] == samples.series_type[request.index, place % slots]
    assert flat["present"].shape == (5 * slots, depth)
    assert batch.lengths.device == CPU
    if slots > 1:
        assert (batch.lengths == 0).any(), "an absent series"
        assert (batch.lengths.sum(dim=1) > 0).all()


def test_a_known_cell_sums_to_one_and_an_unknown_one_is_nothing(step):
    batch, *_ = step()
    severity = np.stack([request.severity for request in batch.requests])
    assert (severity == -1).any()
    assert batch.known.tolist() == (severity != -1).tolist()
    for grades, targets in zip(severity.tolist(), batch.target.tolist(), strict=True):
        for grade, target in zip(grades, targets, strict=True):
            assert target == [float(grade == s) for s in range(3)]


def test_one_hot_is_float32(make_samples):
    target = one_hot(list(make_samples(4).severity))
    assert target.dtype == np.float32
    assert target.shape == (4, 25, 3)
    assert set(target.sum(axis=2).ravel().tolist()) == {0, 1}


def test_levels_are_those_of_the_samples(step):
    batch, *_ = step()
    assert batch.level.tolist() == [-1] * 5
    assert batch.level.dtype == torch.int64


def test_a_filler_is_known_nowhere(step):
    batch, *_ = step(n=1, rank=1)
    assert batch.requests[0].filler
    assert not batch.known.any()
    assert not batch.target.any()


# Mixes.

BOXES = ((0, 0, 16, 20), (2, 3, 9, 11), (5, 5, 5, 9), (0, 0, 1, 1), (12, 0, 16, 20))


def make_mix(kind, partner=(2, 0, 1, 4, 3)):
    if kind == "mixup":
        share = np.array([0.25, 1.0, 0.0, 0.9, 0.5], np.float32)
        return Mix(np.array(partner), share, None)
    areas = np.array([(h1 - h0) * (w1 - w0) for h0, w0, h1, w1 in BOXES])
    return Mix(np.array(partner), (1 - areas / 320).astype(np.float32), BOXES)


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_batch_equals_a_loop_over_its_samples(step, slots, kind):
    before, *_ = step(slots, absent=0.3)
    mix = make_mix(kind)
    after = mixed(before, mix)
    for sample, partner in enumerate(mix.partner):
        share = float(mix.share[sample])
        own, other = before.image[sample], before.image[partner]
        if kind == "mixup":
            expected = share * own + (1 - share) * other
        else:
            h0, w0, h1, w1 = BOXES[sample]
            expected = own.clone()
            expected[..., h0:h1, w0:w1] = other[..., h0:h1, w0:w1]
        torch.testing.assert_close(after.image[sample], expected)
        target = share * before.target[sample] + (1 - share) * before.target[partner]
        torch.testing.assert_close(after.target[sample], target)
        here, there = before.present[sample], before.present[partner]
        assert after.present[sample].tolist() == (here | there).tolist()
        place = [
            float(before.position[sample][i] if here[i] else before.position[partner][i])
            for i in np.ndindex(*here.shape)
        ]
        assert after.position[sample].flatten().tolist() == place
        lengths = np.atleast_1d(after.lengths[sample].numpy())
        assert lengths.tolist() == np.atleast_1d(after.present[sample].sum(dim=-1)).tolist()
    assert after.requests == before.requests
    assert (after.level == before.level).all()
    assert (after.series_type == before.series_type).all()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_targets_sum_to_the_shares_of_the_samples_that_are_known(step, kind):
    before, *_ = step()
    mix = make_mix(kind)
    after = mixed(before, mix)
    share = torch.from_numpy(mix.share)[:, None]
    partner = torch.from_numpy(mix.partner)
    expected = share * before.known + (1 - share) * before.known[partner]
    torch.testing.assert_close(after.target.sum(dim=2), expected)
    assert (after.known == (expected > 0)).all()
    both, neither = before.known & before.known[partner], ~before.known & ~before.known[partner]
    assert after.target.sum(dim=2)[both].numpy() == pytest.approx(1)
    assert not after.target[neither].any()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("slots", [1, 2])
def test_a_mix_of_each_with_itself_is_the_identity(step, kind, slots):
    before, *_ = step(slots, absent=0.3)
    after = mixed(before, make_mix(kind, partner=range(5)))
    for name in shapes(before):
        assert (getattr(after, name) == getattr(before, name)).all(), name


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mix_leaves_the_batch_it_mixes_as_it_was(step, kind):
    before, _, pixels = step()
    kept = pixels.clone()
    mixed(before, make_mix(kind))
    assert (before.image[:, :, 0] == kept).all()


def test_a_batch_is_made_mixed_where_a_mix_is_given(step):
    mix = make_mix("mixup")
    made, *_ = step(mix=mix)
    plain, *_ = step()
    assert (made.image == mixed(plain, mix).image).all()
    assert (made.target == mixed(plain, mix).target).all()
