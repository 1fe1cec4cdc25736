import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from lumbar.train.plan import NO_SLICE, AugmentConfig, CropConfig, draw_matrix
from lumbar.train.warp import gather_slices, warp_slices

IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


def warp(volume, slices, matrix, shape_hw, *, gain=1.0, offset=0.0, noise=0.0, seed=0):
    out = np.full((len(slices), *shape_hw), np.nan, np.float32)
    numbers = np.array([gain, offset, noise, seed], np.float32)
    warp_slices(out, volume, np.array(slices, np.int32), np.float32(matrix), numbers)
    return out


def reference(volume, slices, matrix, shape_hw):
    """The same map by scipy: linear, 0 outside and blended into it over one pixel."""
    h, w = np.indices(shape_hw)
    matrix = np.float32(matrix).astype(np.float64)
    x, y = (row[0] * w + row[1] * h + row[2] for row in matrix)
    planes = [
        map_coordinates(volume[s].astype(np.float64), (y, x), order=1, mode="grid-constant")
        for s in slices
    ]
    return np.array(planes)


def random_volume(rng, dtype, shape):
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.uint8, np.int16]),
    source=st.tuples(st.integers(1, 4), st.integers(2, 40), st.integers(2, 40)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    zoom=st.floats(0.05, 4),
)
def test_the_pass_equals_scipy_at_any_matrix(seed, dtype, source, target, zoom):
    rng = np.random.default_rng(seed)
    volume = random_volume(rng, dtype, source)
    slices = rng.integers(0, source[0], 3).tolist()
    linear = rng.normal(size=(2, 2)) * zoom
    # Some place of the target falls on some place of the source, often at its edge.
    inside = rng.uniform(0, 1, 2) * (source[2], source[1])
    there = linear @ (rng.uniform(0, 1, 2) * (target[1], target[0]))
    matrix = np.column_stack([linear, inside - there])
    got = warp(volume, slices, matrix, target)
    steepest = float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min)
    # A place is held in float32: off by 1e-4 pixels at most, times the steepest edge there is.
    assert got == pytest.approx(reference(volume, slices, matrix, target), abs=2e-4 * steepest)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_the_identity_copies_every_pixel_and_a_whole_shift_leaves_the_picture(dtype):
    volume = random_volume(np.random.default_rng(0), dtype, (3, 7, 9))
    assert np.array_equal(warp(volume, [2, 0], IDENTITY, (7, 9)), volume[[2, 0]])
    for across, down in ((9, 0), (-9, 0), (0, 7), (0, -7), (1e6, -1e6)):
        shifted = IDENTITY + np.array([[0, 0, across], [0, 0, down]], np.float32)
        assert not warp(volume, [1], shifted, (7, 9)).any()
    half = IDENTITY + np.array([[0, 0, -0.5], [0, 0, 0]], np.float32)
    edge = warp(volume, [0], half, (7, 9))[0, :, 0]
    assert edge == pytest.approx(volume[0, :, 0] / 2)


def test_read_only_memory_is_read(tmp_path):
    volume = random_volume(np.random.default_rng(1), np.uint8, (2, 8, 8))
    volume.tofile(tmp_path / "v")
    mapped = np.memmap(tmp_path / "v", np.uint8, "r", shape=(2, 8, 8))
    assert np.array_equal(warp(mapped, [1], IDENTITY, (8, 8)), volume[[1]])


def test_gain_and_offset_apply_to_the_stored_value():
    volume = random_volume(np.random.default_rng(2), np.int16, (2, 9, 9))
    got = warp(volume, [0, 1], IDENTITY, (9, 9), gain=0.25, offset=-3.5)
    assert got == pytest.approx(volume * 0.25 - 3.5, rel=1e-5, abs=1e-3)


def test_a_slice_that_is_not_there_is_zero_whatever_the_numbers():
    volume = np.full((2, 6, 6), 99, np.uint8)
    slices = [0, NO_SLICE, 1, NO_SLICE]
    got = warp(volume, slices, IDENTITY, (6, 6), gain=2, offset=5, noise=3, seed=4)
    assert not got[[1, 3]].any()
    assert (got[[0, 2]] > 100).all()


@pytest.mark.parametrize("axis", ["w", "h"])
def test_voxels_that_say_their_place_are_read_where_the_matrix_points(axis):
    crop = CropConfig(slices=1, height=40, width=48, pixel_mm=0.9)
    augment = AugmentConfig(rotation_degrees=15, scale=0.2, shift_mm=5)
    spacing_h, spacing_w = 0.75, 0.6
    h, w = np.indices((96, 128))
    per_mm = 300
    place_mm = w * spacing_w if axis == "w" else h * spacing_h
    volume = np.rint(place_mm * per_mm).astype(np.int16)[None]
    spacing = np.array([spacing_h, spacing_w])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrix = draw_matrix(crop, augment, (96, 128), spacing, rng)
        got_mm = warp(volume, [0], matrix, (40, 48), gain=1 / per_mm)[0]
        oh, ow = np.indices((40, 48))
        row, spacing_mm = (matrix[0], spacing_w) if axis == "w" else (matrix[1], spacing_h)
        pixels = row[0] * ow + row[1] * oh + row[2]
        assert np.abs(got_mm / spacing_mm - pixels).max() < 0.05


def noise_of(seed, shape=(6, 64, 96), noise=1.0):
    volume = np.zeros((1, 2, 2), np.uint8)
    return warp(volume, [0] * shape[0], IDENTITY, shape[1:], noise=noise, seed=seed)


def test_noise_is_standard_normal_but_for_its_tails():
    values = np.stack([noise_of(seed) for seed in range(4)]).ravel()
    # 147,456 values: the mean is within 0.011, the deviation within 0.008 (four sigma).
    assert values.mean() == pytest.approx(0, abs=0.011)
    assert values.std() == pytest.approx(1, abs=0.008)
    # The sum of four uniform numbers: excess kurtosis -1.2 / 4, nothing beyond sqrt(12).
    assert np.mean(values**4) == pytest.approx(2.7, abs=0.06)
    assert abs(np.mean(values**3)) < 0.04
    assert np.abs(values).max() <= np.sqrt(12)


def test_noise_is_independent_over_columns_rows_slices_and_seeds():
    first, second, far = noise_of(1), noise_of(2), noise_of(2**24 - 1)
    pairs = {
        "columns": (first[..., 1:], first[..., :-1]),
        "rows": (first[:, 1:], first[:, :-1]),
        "slices": (first[1:], first[:-1]),
        "seeds": (first, second),
        "far seeds": (first, far),
        "next seed, next row": (first[:, 1:], second[:, :-1]),
        "next seed, next column": (first[..., 1:], second[..., :-1]),
    }
    for name, (a, b) in pairs.items():
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(a.size), name
        assert not np.isclose(a, b).mean() > 0.01, name


def test_noise_is_a_function_of_seed_and_voxel_and_scales():
    volume = random_volume(np.random.default_rng(3), np.uint8, (3, 64, 96))
    assert noise_of(7).tobytes() == noise_of(7).tobytes()
    assert noise_of(7, noise=0.25) == pytest.approx(noise_of(7) / 4, abs=1e-6)
    quiet = warp(volume, [0, 1, 2], IDENTITY, (64, 96))
    loud = warp(volume, [0, 1, 2], IDENTITY, (64, 96), noise=1.0, seed=7)
    assert loud - quiet == pytest.approx(noise_of(7)[:3], abs=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_gathering_copies_the_named_slices(dtype):
    volume = random_volume(np.random.default_rng(4), dtype, (5, 6, 7))
    out = np.full((4, 6, 7, 1), 77, dtype)
    gather_slices(out, volume, np.array([4, 0, NO_SLICE, 4], np.int32))
    assert np.array_equal(out[[0, 1, 3], ..., 0], volume[[4, 0, 4]])
    assert not out[2].any()
