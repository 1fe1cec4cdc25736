from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.cache.names import SERIES_TYPES
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig, mirrored
from lumbar.train.plan.random_numbers import UniformNumbers
from lumbar.train.plan.samples import ABSENT
from lumbar.train.plan.slices import reverse_slices, spread_slices, window_slices
from lumbar.train.plan.view import N_UNIFORM, most_slices, sample_views

CROP = CropConfig(slices=6, height=32, width=24, pixel_mm=2.0)
STILL = AugmentConfig.none()


def views_of(samples, indices, *, crop=CROP, augment=STILL, mirrors=(), seed=0, shuffle=True):
    """The views of some samples, one after the other's, by the numbers of a seed."""
    n = len(indices)
    views = n * samples.row.shape[1]
    rng = np.random.default_rng(seed)
    uniform, left_out = UniformNumbers(rng.random((N_UNIFORM, views))), rng.random((views, 1024))
    return sample_views(
        samples,
        np.array(indices),
        crop,
        augment,
        mirrors=np.tile(np.isin(range(3), list(mirrors)), (n, 1)),
        uniform=uniform,
        left_out=left_out if augment.slice_dropout > 0 else None,
        shuffle=shuffle,
    )


def view_of(samples, index=0, slot=0, *, seed=0, **options):
    return views_of(samples, [index], seed=(seed, index), **options)[slot]


def on(**strengths):
    return AugmentConfig(**STILL.model_dump() | strengths)


def there(view):
    return view.slices[view.slices >= 0]


@given(seed=st.integers(0, 50))
def test_no_augmentation_changes_nothing(make_samples, seed):
    samples = make_samples(7)
    for index in range(7):
        view = view_of(samples, index, seed=seed, shuffle=False)
        depth, height, width = samples.shape[index, 0]
        spacing_h, spacing_w = samples.spacing_mm[index, 0]
        across, down = CROP.pixel_mm / spacing_w, CROP.pixel_mm / spacing_h
        expected = [
            [across, 0, (width - 1) / 2 - across * (CROP.width - 1) / 2],
            [0, down, (height - 1) / 2 - down * (CROP.height - 1) / 2],
        ]
        assert view.matrix == pytest.approx(np.array(expected), rel=1e-5, abs=1e-4)
        assert view.numbers.tolist() == [1, 0, 32, 24, 0, *[0] * 5, 1, 0, *[0] * 6]
        assert view.slices.tolist() == spread_slices(int(depth), CROP.slices).tolist()
        assert view.row == samples.row[index, 0]


def test_pixels_of_the_size_of_the_source_are_the_source(make_samples, render_with_scipy):
    samples = make_samples(1, depths=(6, 7))
    samples = replace(samples, shape=np.array([[[6, 40, 30]]]), spacing_mm=np.array([[[0.5, 0.5]]]))
    crop = CropConfig(slices=6, height=40, width=30, pixel_mm=0.5)
    volume = np.random.default_rng(0).integers(0, 255, (6, 40, 30))
    sampled = render_with_scipy(volume, view_of(samples, crop=crop, shuffle=False))
    assert sampled == pytest.approx(volume, abs=1e-9)


@pytest.mark.parametrize("pick", ["spread", "window", "all"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_position_is_the_place_of_the_slice_in_its_stack(make_samples, pick, shuffle):
    samples = make_samples(12)
    crop = CROP.model_copy(update={"pick": pick})
    for index in range(12):
        view = view_of(samples, index, crop=crop, shuffle=shuffle)
        depth = samples.shape[index, 0, 0]
        for slice_, position in zip(view.slices, view.position, strict=True):
            assert position == pytest.approx((slice_ + 0.5) / depth if slice_ >= 0 else 0)


def test_a_window_reaches_every_place_of_the_stack_with_the_same_chance(make_samples):
    samples = make_samples(1, depths=(11, 12))
    crop = CROP.model_copy(update={"pick": "window"})
    first = [view_of(samples, crop=crop, seed=seed).slices for seed in range(1200)]
    assert all((np.diff(slices) == 1).all() for slices in first)
    counts = np.bincount([slices[0] for slices in first])
    assert counts == pytest.approx(np.full(6, 200), abs=50)
    assert view_of(samples, crop=crop, shuffle=False).slices.tolist() == [2, 3, 4, 5, 6, 7]


def test_a_spread_is_shifted_at_random_when_shuffled(make_samples):
    samples = make_samples(1, depths=(40, 41))
    sampled = {tuple(view_of(samples, seed=seed).slices) for seed in range(100)}
    assert len(sampled) >= 6
    assert {s for slices in sampled for s in slices} == set(range(40))


@pytest.mark.parametrize("pick", ["spread", "window"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_slices_of_a_disc_are_those_around_it(make_samples, pick, shuffle):
    samples = make_samples(20)
    centres = np.random.default_rng(0).uniform(0, samples.shape - 1)
    samples = replace(samples, centre_dhw=centres)
    crop = CROP.model_copy(update={"pick": pick})
    for index in range(20):
        view = view_of(samples, index, crop=crop, shuffle=shuffle)
        expected = window_slices(int(samples.shape[index, 0, 0]), 6, float(centres[index, 0, 0]))
        assert view.slices.tolist() == expected.tolist()
        _, h, w = centres[index, 0]
        assert view.matrix @ (11.5, 15.5, 1) == pytest.approx([w, h], abs=1e-3)


def test_some_series_types_have_other_pixels(make_samples):
    samples = make_samples(30)
    crop = CROP.model_copy(update={"pixel_mm_of": {"axial_t2": 0.5}})
    augment = on(blur_mm=3.0, probability=1.0)
    seen = set()
    for index in range(30):
        view = view_of(samples, index, crop=crop, augment=augment)
        plain = view_of(samples, index, augment=augment)
        series_type = SERIES_TYPES[samples.series_type[index, 0]]
        finer = 4 if series_type == "axial_t2" else 1
        assert view.matrix[:, :2] * finer == pytest.approx(plain.matrix[:, :2], rel=1e-5)
        assert view.intensity.blur_sigma == pytest.approx(plain.intensity.blur_sigma * finer)
        seen.add(series_type)
    assert seen == set(SERIES_TYPES)


# Absent series.


@settings(max_examples=60)
@given(
    seed=st.integers(0, 999),
    pick=st.sampled_from(["spread", "window", "all"]),
    mirrors=st.sets(st.sampled_from(range(3))),
    dropout=st.sampled_from([0.0, 0.5]),
)
def test_an_absent_series_is_another_of_the_study_without_slices(
    make_samples, seed, pick, mirrors, dropout
):
    samples = make_samples(8, 3, absent=0.5)
    crop = CROP.model_copy(update={"pick": pick})
    augment = on(slice_dropout=dropout, cutout=1.0, low_resolution=2.0, probability=1.0)
    options = {"crop": crop, "augment": augment, "mirrors": mirrors, "seed": seed}
    sampled = views_of(samples, range(8), **options)
    deepest = 6
    if pick == "all":
        deepest = -(-samples.shape[samples.row != ABSENT, 0].max() // 6) * 6
    for index, slot in np.argwhere(samples.row == ABSENT).tolist():
        view = sampled[index * 3 + slot]
        assert view.row in samples.row[index]
        assert view.row != ABSENT
        assert view.slices.tolist() == [-1] * deepest, "no more than the deepest that is there"
        assert view.position.tolist() == [0] * deepest
        assert view.intensity.cutout_dhw[3] <= 6


# Slices left out.


def test_slice_dropout_leaves_out_its_share_and_keeps_one(make_samples):
    samples = make_samples(1, depths=(40, 41))
    crop = CROP.model_copy(update={"slices": 20})
    for probability in (0.3, 0.95):
        augment = on(slice_dropout=probability)
        kept = []
        for seed in range(400):
            view = view_of(samples, crop=crop, augment=augment, seed=seed)
            plain = view_of(samples, crop=crop, seed=seed)
            left = there(view)
            assert len(view.slices) == 20
            assert (view.slices[len(left) :] == -1).all()
            assert len(left) >= 1
            # Those that are left keep their order and their places in the stack.
            assert set(left) <= set(plain.slices)
            assert (np.diff(left) > 0).all()
            assert view.position[: len(left)] == pytest.approx((left + 0.5) / 40)
            assert not view.position[len(left) :].any()
            kept.append(len(left))
        one = probability**20
        assert np.mean(kept) == pytest.approx(20 * (1 - probability) + one, abs=0.3)


def test_a_shallow_stack_keeps_a_slice_of_its_own(make_samples):
    samples = make_samples(1, depths=(2, 3))
    augment = on(slice_dropout=0.99)
    sampled = {tuple(there(view_of(samples, augment=augment, seed=s))) for s in range(200)}
    assert sampled >= {(0,), (1,)}
    assert sampled <= {(0,), (1,), (0, 1)}


# One step on its own.

ALL_ON = {
    "rotation_degrees": 20.0,
    "brightness": 0.2,
    "noise": 0.1,
    "gamma": 0.3,
    "blur_mm": 2.0,
    "cutout": 0.4,
    "slice_dropout": 0.4,
    "low_resolution": 1.5,
}


@pytest.mark.parametrize("step", ALL_ON)
def test_switching_a_step_off_leaves_the_others_as_they_were(make_samples, step):
    part = {
        "rotation_degrees": {"matrix"},
        "slice_dropout": {"slices", "position"},
        "low_resolution": {"matrix", "grid_hw"},
        "brightness": {"offset"},
        "noise": {"noise"},
        "gamma": {"gamma"},
        "blur_mm": {"blur_sigma"},
        "cutout": {"cutout_dhw"},
    }
    samples = make_samples(10, depths=(20, 40))
    changed = set()
    for index in range(10):
        found = []
        for strengths in (ALL_ON, ALL_ON | {step: 0.0}):
            augment = on(probability=1.0, **strengths)
            view = view_of(samples, index, augment=augment, mirrors=[0])
            values = {name: getattr(view, name) for name in ("row", "slices", "position", "matrix")}
            found.append(values | asdict(view.intensity))
        one, other = found
        changed |= {name for name in one if not np.array_equal(one[name], other[name])}
    assert changed == part[step]


def test_mirrors_change_no_number_but_signs_and_order(make_samples):
    samples = make_samples(9)
    for index in range(9):
        plain = view_of(samples, index)
        mirror = view_of(samples, index, mirrors=[0, 1, 2])
        assert mirror.intensity == plain.intensity
        assert np.abs(mirror.matrix[:, :2]) == pytest.approx(np.abs(plain.matrix[:, :2]))
        assert sorted(mirror.slices) == sorted(plain.slices)


@settings(max_examples=60)
@given(seed=st.integers(0, 500), mirrors=st.sets(st.sampled_from(range(3)), min_size=1))
def test_a_mirror_of_the_mirror_is_the_view(make_samples, seed, mirrors):
    samples = make_samples(3)
    augment = on(rotation_degrees=10.0, low_resolution=1.0, slice_dropout=0.3, probability=0.7)
    options = {"augment": augment, "seed": seed}
    plain, once = (views_of(samples, range(3), mirrors=m, **options) for m in ((), mirrors))
    for index, (before, after) in enumerate(zip(plain, once, strict=True)):
        axes = {int(samples.patient_axes[index, 0, m]) for m in mirrors}
        along, grid_hw = np.array([1 in axes, 2 in axes]), before.intensity.grid_hw
        twice = mirrored(after.matrix.astype(np.float64), along, grid_hw)
        assert twice == pytest.approx(before.matrix, abs=1e-3)
        turned = np.array([0 in axes])
        slices = reverse_slices(after.slices[None], turned)[0]
        assert slices.tolist() == before.slices.tolist()
        here = before.slices >= 0
        position = 1 - after.position[here][::-1] if 0 in axes else after.position[here]
        assert position == pytest.approx(before.position[here], abs=1e-6)


def test_every_number_is_taken(make_samples):
    uniform = UniformNumbers(np.random.default_rng(0).random((N_UNIFORM, 1)))
    options = {"mirrors": np.zeros((1, 3), bool), "left_out": None, "shuffle": True}
    sample_views(make_samples(1), np.array([0]), CROP, STILL, uniform=uniform, **options)
    with pytest.raises(StopIteration):
        uniform.unit()


@pytest.mark.parametrize(("pick", "most"), [("spread", 6), ("window", 6), ("all", 24)])
def test_the_deepest_view_has_places_for_the_most_slices(make_samples, pick, most):
    samples = make_samples(20, 2, absent=0.3, depths=(20, 23))
    crop = CROP.model_copy(update={"pick": pick})
    assert most_slices(samples, crop) == most
    assert {len(view.slices) for view in views_of(samples, range(20), crop=crop)} == {most}
    assert most_slices(make_samples(0), crop) == 6
