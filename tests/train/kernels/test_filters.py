import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve1d, map_coordinates

SIZE = st.tuples(st.integers(1, 50), st.integers(1, 50))
ANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SEED = st.integers(0, 2**32 - 1)


def enlarged(planes, shape_hw):
    """By scipy, in float64: half-pixel centres, the edge's pixel beyond the edge."""
    places = [
        np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
        for n, m in zip(shape_hw, planes.shape[1:], strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    return np.array([map_coordinates(p, grid, order=1, mode="nearest") for p in planes])


def blurred(planes, sigma):
    radius = math.ceil(3 * np.float32(sigma))
    t = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (t / float(np.float32(sigma))) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        planes = convolve1d(planes, weights, axis=axis, mode="mirror")
    return planes


def field(shape_hw, c):
    y, x = np.meshgrid(
        *[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape_hw], indexing="ij"
    )
    return np.exp(c[0] * x + c[1] * y + c[2] * x * x + c[3] * x * y + c[4] * y * y)


@ANY
@given(seed=SEED, grid=SIZE, shape=SIZE)
def test_low_resolution_equals_scipy(render_slices, random_volume, seed, grid, shape):
    volume = random_volume(np.random.default_rng(seed), np.uint8, (2, *grid))
    got = render_slices(volume, [0, 1], shape, grid_hw=grid)
    assert got == pytest.approx(enlarged(volume.astype(float), shape), abs=255 * 2e-5)


def test_low_resolution_equals_opencv(render_slices, random_volume):
    volume = random_volume(np.random.default_rng(0), np.uint8, (1, 20, 30))
    expected = cv2.resize(volume[0].astype(np.float32), (75, 64), interpolation=cv2.INTER_LINEAR)
    got = render_slices(volume, [0], (64, 75), grid_hw=(20, 30))[0]
    assert got == pytest.approx(expected, abs=0.01)


@ANY
@given(seed=SEED, shape=SIZE, sigma=st.floats(0.05, 12))
def test_blur_equals_scipy_whatever_the_size(render_slices, random_volume, seed, shape, sigma):
    volume = random_volume(np.random.default_rng(seed), np.uint8, (1, *shape))
    got = render_slices(volume, [0], shape, blur_sigma=sigma)
    assert got == pytest.approx(blurred(volume.astype(float), sigma), abs=255 * 1e-5)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.7])
def test_blur_equals_opencv(render_slices, random_volume, sigma):
    volume = random_volume(np.random.default_rng(0), np.uint8, (1, 40, 50))
    size = 2 * math.ceil(3 * np.float32(sigma)) + 1
    expected = cv2.GaussianBlur(
        volume[0].astype(np.float64), (size, size), sigma, borderType=cv2.BORDER_REFLECT_101
    )
    assert render_slices(volume, [0], (40, 50), blur_sigma=sigma)[0] == pytest.approx(
        expected, abs=0.01
    )


@ANY
@given(seed=SEED, shape=SIZE, terms=st.tuples(*[st.floats(-1, 1, width=32)] * 5))
def test_the_bias_field_is_the_exponential_of_its_polynomial(
    render_slices, random_volume, seed, shape, terms
):
    volume = random_volume(np.random.default_rng(seed), np.uint8, (1, *shape))
    got = render_slices(volume, [0], shape, bias=terms)
    assert got == pytest.approx(volume * field(shape, terms), rel=3e-6, abs=1e-6)


@ANY
@given(seed=SEED, gamma=st.floats(0.0625, 8, width=32), gain=st.floats(1e-4, 10))
def test_gamma_is_a_power_and_negative_values_are_zero(
    render_slices, random_volume, seed, gamma, gain
):
    volume = random_volume(np.random.default_rng(seed), np.int16, (1, 20, 20))
    value = render_slices(volume, [0], (20, 20), gain=gain).astype(np.float64)
    expected = np.maximum(value, 0) ** gamma
    assume(gamma != 1)
    within = (expected < 1e37) & ((expected > 1e-36) | (value <= 0))
    got = render_slices(volume, [0], (20, 20), gain=gain, gamma=gamma)
    assert got[within] == pytest.approx(expected[within], rel=1e-5)


@pytest.mark.parametrize("value", [0, 1, 5])
def test_gamma_leaves_nought_and_one_alone(render_slices, value):
    volume = np.full((1, 4, 4), value, np.uint8)
    got = render_slices(volume, [0], (4, 4), gamma=1.7)
    assert got == pytest.approx(np.full((1, 4, 4), float(value) ** np.float32(1.7)), rel=1e-6)


def test_the_steps_come_in_their_order(render_slices, random_volume):
    volume = random_volume(np.random.default_rng(9), np.uint8, (12, 40, 44))
    matrix = np.float32([[1.4, 0.2, 0], [-0.1, 1.3, 1]])
    slices, shape, grid = [*range(12), -1, 3], (52, 60), (26, 31)
    terms, box = [0.3, -0.2, 0.1, 0.2, -0.3], [1, 2, 3, 9, 30, 31]
    numbers = {"gain": 0.01, "offset": -0.4, "cutout": box}
    numbers |= {"blur_sigma": 1.2, "bias": terms, "gamma": 1.3}
    got = render_slices(
        volume, slices, shape, matrix=matrix, grid_hw=grid, noise=0.1, key=(3, 4), **numbers
    )
    h, w = np.indices(grid)
    x, y = (row[0] * w + row[1] * h + row[2] for row in matrix.astype(float))
    sampled = [
        map_coordinates(volume[s].astype(float), (y, x), order=1, mode="grid-constant")
        for s in slices
    ]
    expected = enlarged(np.array(sampled) * 0.01 - 0.4, shape)
    expected = np.maximum(blurred(expected, 1.2) * field(shape, terms), 0) ** 1.3
    nothing = np.zeros((1, 2, 2), np.uint8)
    expected += render_slices(nothing, [0] * len(slices), shape, noise=0.1, key=(3, 4))
    expected[1:9, 2:30, 3:31] = 0
    expected[12] = 0
    # A power below 2 is steep at 0, where the places' rounding shows.
    assert got == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("steps", [{}, {"blur_sigma": 1.1, "gamma": 1.2, "grid_hw": (90, 80)}])
def test_a_sample_has_the_same_bytes_in_any_thread_and_beside_any_other(
    render_slices, random_volume, steps
):
    volume = random_volume(np.random.default_rng(9), np.uint8, (11, 130, 140))
    matrix = [[0.9, 0.2, 3.1], [-0.2, 1.1, 4.2]]

    def once(slices):
        return render_slices(
            volume, slices, (101, 99), matrix=matrix, gain=0.01, noise=0.1, key=(1, 2), **steps
        )

    slices = list(range(11))
    first = once(slices)
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(once, [slices] * 12):
            assert again.tobytes() == first.tobytes()
    # A slice does not depend on the others that are interpolated beside it.
    assert once([0, 7, -1, 3, -1, 1])[[0, 3]].tobytes() == first[[0, 3]].tobytes()
    alone = once([10, *slices[1:]])
    assert alone[1:].tobytes() == first[1:].tobytes()
