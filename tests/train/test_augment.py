from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.train import numbers
from lumbar.train.augment import N_DRAWS, AugmentConfig, Draws, Intensity, draw_intensity

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
NOTHING = Intensity(grid_hw=SHAPE[1:])


def draw(seed, *, pixel_mm=0.5, **strengths):
    augment = AugmentConfig.none().model_copy(update=strengths)
    return draw_intensity(augment, SHAPE, pixel_mm, Draws((seed,)))


def test_draws_are_a_function_of_their_seed():
    def many(*seed):
        draws = Draws(seed)
        return [draws.unit() for _ in range(N_DRAWS)]

    assert many(1, 2) == many(1, 2)
    assert len({number for seed in range(20) for number in many(1, seed)}) == 20 * N_DRAWS
    assert all(0 <= number < 1 for number in many(3, 4))


def test_asking_for_many_numbers_changes_none_of_those_handed_out_one_by_one():
    one, other = Draws((5,)), Draws((5,))
    many = one.units(1000)
    assert [one.unit() for _ in range(N_DRAWS)] == [other.unit() for _ in range(N_DRAWS)]
    assert (other.units(1000) == many).all()
    assert len(set(many)) == 1000


def test_draws_fill_their_ranges():
    streams = [Draws((seed,)) for seed in range(3000)]
    within = [draws.within(3.0) for draws in streams]
    factors = [draws.factor(0.5) for draws in streams]
    bits = [draws.bits() for draws in streams]
    happened = np.mean([draws.happens(0.3) for draws in streams])
    assert (min(within), max(within)) == pytest.approx((-3, 3), abs=0.01)
    assert (min(factors), max(factors)) == pytest.approx((1 / 1.5, 1.5), abs=0.01)
    assert np.median(factors) == pytest.approx(1, abs=0.02)
    assert 0 <= min(bits) < 2**23
    assert 2**32 - 2**23 < max(bits) < 2**32
    assert happened == pytest.approx(0.3, abs=0.03)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_probability_of_zero_never_happens_and_one_always(seed):
    draws = Draws((seed,))
    assert not any(draws.happens(0.0) for _ in range(20))
    assert all(draws.happens(1.0) for _ in range(20))


@given(seed=st.integers(0, 2**32 - 1))
def test_no_augmentation_changes_no_number(seed):
    intensity = draw(seed)
    assert asdict(intensity) | {"key": (0, 0)} == asdict(NOTHING)


@pytest.mark.parametrize("step", STRONG)
def test_switching_a_step_on_changes_its_own_number_and_no_other(step):
    rest = {name: strength for name, strength in STRONG.items() if name != step}
    for seed in range(20):
        without = asdict(draw(seed, probability=1.0, **rest))
        with_it = asdict(draw(seed, probability=1.0, **STRONG))
        changed = {name for name in without if without[name] != with_it[name]}
        assert changed == {PARTS[step]}
        if step == "cutout":
            assert without["cutout_dhw"][:3] == without["cutout_dhw"][3:], "a box of something"
        else:
            assert without[PARTS[step]] == getattr(NOTHING, PARTS[step])


def test_the_numbers_fill_their_ranges():
    drawn = [draw(seed, probability=1.0, **STRONG) for seed in range(3000)]

    def reach(values):
        return np.min(values), np.max(values)

    def between(low, high):
        return pytest.approx((low, high), abs=0.02)

    assert reach([d.offset for d in drawn]) == between(-0.4, 0.4)
    assert reach([d.gain for d in drawn]) == between(0.7, 1.3)
    assert reach([d.noise for d in drawn]) == between(0, 0.2)
    assert reach([d.gamma for d in drawn]) == between(1 / 1.5, 1.5)
    # Millimetres become pixels of half a millimetre.
    assert reach([d.blur_sigma for d in drawn]) == between(0, 6)
    for coefficient in np.transpose([d.bias for d in drawn]):
        assert reach(coefficient) == between(-0.6, 0.6)
    assert {d.grid_hw for d in drawn} >= {(40, 60), (13, 20)}
    assert {d.key[0] >= 2**31 for d in drawn} == {d.key[1] >= 2**31 for d in drawn} == {True, False}
    assert len({d.key for d in drawn}) == len(drawn)


def test_the_numbers_of_a_sample_are_independent():
    drawn = [draw(seed, probability=1.0, **STRONG) for seed in range(3000)]
    columns = [
        [d.offset, d.gain, d.noise, np.log(d.gamma), d.blur_sigma, d.grid_hw[0], *d.bias]
        for d in drawn
    ]
    together = np.corrcoef(np.transpose(columns))
    assert np.abs(together - np.eye(len(together))).max() < 0.08


def test_the_grid_keeps_the_shape_of_the_crop():
    for seed in range(200):
        rows, columns = draw(seed, probability=1.0, **STRONG).grid_hw
        assert 13 <= rows <= 40
        assert columns == pytest.approx(rows * 1.5, abs=1.3)


def test_a_grid_has_a_pixel_at_least():
    augment = AugmentConfig.none().model_copy(update={"low_resolution": 15.0, "probability": 1.0})
    grids = {draw_intensity(augment, (1, 1, 2), 1.0, Draws((s,))).grid_hw for s in range(50)}
    assert (1, 1) in grids
    assert min(min(grid) for grid in grids) == 1


def test_boxes_lie_inside_and_reach_every_edge_and_their_greatest_size():
    boxes = np.array([draw(seed, probability=1.0, **STRONG).cutout_dhw for seed in range(3000)])
    starts, stops = boxes[:, :3], boxes[:, 3:]
    assert (starts >= 0).all()
    assert (starts <= stops).all()
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert stops.max(axis=0).tolist() == list(SHAPE)
    assert (stops - starts).max(axis=0).tolist() == [6, 20, 30]


def test_each_step_happens_with_the_probability_and_on_its_own():
    steps = ("gamma", "bias", "blur_sigma", "grid_hw", "cutout_dhw")
    drawn = [draw(seed, probability=0.3, **STRONG) for seed in range(3000)]
    happened = np.array([[getattr(d, s) != getattr(NOTHING, s) for s in steps] for d in drawn])
    # A grid or a box can come out as nothing by rounding.
    assert happened.mean(axis=0) == pytest.approx(np.full(5, 0.3), abs=0.03)
    assert np.abs(np.corrcoef(happened.T) - np.eye(5)).max() < 0.08
    for always in ("gain", "offset", "noise"):
        assert all(getattr(d, always) != getattr(NOTHING, always) for d in drawn)


@given(
    stored=st.floats(-1000, 1000),
    scale=st.floats(0.001, 2),
    offset=st.floats(-5, 5),
    gain=st.floats(0.5, 1.5),
    added=st.floats(-1, 1),
)
def test_packing_folds_the_scale_of_the_stored_values_into_gain_and_offset(
    stored, scale, offset, gain, added
):
    intensity = Intensity(grid_hw=(5, 6), gain=gain, offset=added)
    packed = intensity.packed(scale, offset).astype(np.float64)
    got = stored * packed[numbers.GAIN] + packed[numbers.OFFSET]
    expected = (stored * scale + offset) * gain + added
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-3)


def test_packing_puts_each_number_in_its_place():
    intensity = Intensity(
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
    expected = [2, 0.5, 5, 6, 1.5, 1, 2, 3, 4, 5, 0.25, 0.125, 1, 2, 3, 4, 5, 6]
    assert intensity.packed().tolist() == expected
    assert len(expected) == numbers.COUNT
    assert intensity.packed_key().tolist() == [7, 2**32 - 1]
