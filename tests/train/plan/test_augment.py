from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.train.plan import pixel_params
from lumbar.train.plan.augment import (
    AugmentConfig,
    Intensity,
    for_stored,
    sample_intensity,
    unchanged,
)
from lumbar.train.plan.random_numbers import UniformNumbers
from lumbar.train.plan.view import N_UNIFORM

SHAPE = (12, 40, 60)
STRONG = {
    "brightness": 0.4,
    "contrast": 0.3,
    "noise": 0.2,
    "gamma": 0.5,
    "bias_field": 0.6,
    "blur_mm": 3.0,
    "low_resolution": 2.0,
    "cutout": 0.5,
}
PARTS = {
    "brightness": "offset",
    "contrast": "gain",
    "noise": "noise",
    "gamma": "gamma",
    "bias_field": "bias",
    "blur_mm": "blur_sigma",
    "low_resolution": "grid_hw",
    "cutout": "cutout_dhw",
}
NOTHING = Intensity(
    grid_hw=SHAPE[1:],
    gain=1.0,
    offset=0.0,
    blur_sigma=0.0,
    bias=(0.0,) * 5,
    gamma=1.0,
    noise=0.0,
    cutout_dhw=(0,) * 6,
    key=(0, 0),
)


def uniform_of(seed, views):
    return UniformNumbers(np.random.default_rng(seed).random((N_UNIFORM, views)))


def sample_many(views, *, seed=0, pixel_mm=0.5, shape=SHAPE, **strengths):
    """Return the numbers of as many views, by their names."""
    augment = AugmentConfig.none().model_copy(update=strengths)
    depth, *size_hw = shape
    of_each = np.full(views, depth), tuple(size_hw), np.full(views, pixel_mm)
    sampled, keys = sample_intensity(augment, *of_each, uniform_of(seed, views))
    return [Intensity.of(*of_one) for of_one in zip(sampled, keys, strict=True)]


@given(seed=st.integers(0, 2**32 - 1))
def test_no_augmentation_changes_no_number(seed):
    (intensity,) = sample_many(1, seed=seed)
    assert asdict(intensity) | {"key": (0, 0)} == asdict(NOTHING)


@pytest.mark.parametrize("step", STRONG)
def test_switching_a_step_on_changes_its_own_number_and_no_other(step):
    rest = {name: strength for name, strength in STRONG.items() if name != step}
    ways = (sample_many(20, probability=1.0, **strengths) for strengths in (rest, STRONG))
    for one, other in zip(*ways, strict=True):
        without, with_it = asdict(one), asdict(other)
        changed = {name for name in without if without[name] != with_it[name]}
        assert changed == {PARTS[step]}
        if step == "cutout":
            assert without["cutout_dhw"][:3] == without["cutout_dhw"][3:], "a box of something"
        else:
            assert without[PARTS[step]] == getattr(NOTHING, PARTS[step])


def test_the_numbers_fill_their_ranges():
    sampled = sample_many(3000, probability=1.0, **STRONG)

    def reach(values):
        return np.min(values), np.max(values)

    def between(low, high):
        return pytest.approx((low, high), abs=0.02)

    assert reach([d.offset for d in sampled]) == between(-0.4, 0.4)
    assert reach([d.gain for d in sampled]) == between(0.7, 1.3)
    assert reach([d.noise for d in sampled]) == between(0, 0.2)
    assert reach([d.gamma for d in sampled]) == between(1 / 1.5, 1.5)
    # Millimetres become pixels of half a millimetre.
    assert reach([d.blur_sigma for d in sampled]) == between(0, 6)
    for coefficient in np.transpose([d.bias for d in sampled]):
        assert reach(coefficient) == between(-0.6, 0.6)
    assert {d.grid_hw for d in sampled} >= {(40, 60), (13, 20)}
    assert (
        {d.key[0] >= 2**31 for d in sampled}
        == {d.key[1] >= 2**31 for d in sampled}
        == {True, False}
    )
    assert len({d.key for d in sampled}) == len(sampled)


def test_the_numbers_of_a_sample_are_independent():
    sampled = sample_many(3000, probability=1.0, **STRONG)
    columns = [
        [d.offset, d.gain, d.noise, np.log(d.gamma), d.blur_sigma, d.grid_hw[0], *d.bias]
        for d in sampled
    ]
    joint = np.corrcoef(np.transpose(columns))
    assert np.abs(joint - np.eye(len(joint))).max() < 0.08


def test_the_grid_keeps_the_shape_of_the_crop():
    for sampled in sample_many(200, probability=1.0, **STRONG):
        rows, columns = sampled.grid_hw
        assert 13 <= rows <= 40
        assert columns == pytest.approx(rows * 1.5, abs=1.3)


def test_a_grid_has_a_pixel_at_least():
    sampled = sample_many(50, shape=(1, 1, 2), low_resolution=15.0, probability=1.0)
    grids = {d.grid_hw for d in sampled}
    assert (1, 1) in grids
    assert min(min(grid) for grid in grids) == 1


def test_boxes_lie_inside_and_reach_every_edge_and_their_greatest_size():
    boxes = np.array([d.cutout_dhw for d in sample_many(3000, probability=1.0, **STRONG)])
    starts, stops = boxes[:, :3], boxes[:, 3:]
    assert (starts >= 0).all()
    assert (starts <= stops).all()
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert stops.max(axis=0).tolist() == list(SHAPE)
    assert (stops - starts).max(axis=0).tolist() == [6, 20, 30]


def test_each_step_happens_with_the_probability_and_on_its_own():
    steps = ("gamma", "bias", "blur_sigma", "grid_hw", "cutout_dhw")
    sampled = sample_many(3000, probability=0.3, **STRONG)
    happened = np.array([[getattr(d, s) != getattr(NOTHING, s) for s in steps] for d in sampled])
    # A grid or a box can come out as nothing by rounding.
    assert happened.mean(axis=0) == pytest.approx(np.full(5, 0.3), abs=0.03)
    assert np.abs(np.corrcoef(happened.T) - np.eye(5)).max() < 0.08
    for always in ("gain", "offset", "noise"):
        assert all(getattr(d, always) != getattr(NOTHING, always) for d in sampled)


@given(
    stored=st.floats(-1000, 1000),
    scale=st.floats(0.001, 2),
    offset=st.floats(-5, 5),
    gain=st.floats(0.5, 1.5),
    added=st.floats(-1, 1),
)
def test_the_scale_of_the_stored_values_is_folded_into_gain_and_offset(
    stored, scale, offset, gain, added
):
    sampled = np.arange(2 * pixel_params.COUNT, dtype=np.float64).reshape(2, -1)
    sampled[:, pixel_params.GAIN], sampled[:, pixel_params.OFFSET] = gain, added
    folded = for_stored(sampled, np.array([scale, 1.0]), np.array([offset, 0.0]))
    got = stored * folded[0, pixel_params.GAIN].astype(float) + folded[0, pixel_params.OFFSET]
    assert got == pytest.approx((stored * scale + offset) * gain + added, rel=1e-5, abs=1e-3)
    assert (folded[1] == sampled[1].astype(np.float32)).all(), "stored values that are normalised"
    assert (folded[0, 2:] == sampled[0, 2:]).all()
    assert (for_stored(sampled[0], scale, offset) == folded[0]).all()


def test_numbers_that_change_nothing():
    assert Intensity.of(unchanged(SHAPE[1:]), np.zeros(2, np.uint32)) == NOTHING


def test_each_number_is_in_its_place():
    sampled = [2, 0.5, 5, 6, 1.5, 1, 2, 3, 4, 5, 0.25, 0.125, 1, 2, 3, 4, 5, 6]
    assert len(sampled) == pixel_params.COUNT
    named = Intensity.of(np.array(sampled, float), np.array([7, 2**32 - 1], np.uint32))
    assert named == Intensity(
        grid_hw=(5, 6),
        gain=2.0,
        offset=0.5,
        blur_sigma=1.5,
        bias=(1.0, 2.0, 3.0, 4.0, 5.0),
        gamma=0.25,
        noise=0.125,
        cutout_dhw=(1, 2, 3, 4, 5, 6),
        key=(7, 2**32 - 1),
    )
