import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbar.train.kernels.finish_row import store_bfloat16, store_float16


def lowbias32(x):
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (20, 33, 70)])
@pytest.mark.parametrize("key", [(0, 0), (1, 2), (2**32 - 1, 2**32 - 1), (7, 2**31)])
def test_noise_is_the_hash_of_the_voxel_and_the_key(render_slices, shape, key):
    volume = np.zeros((1, 2, 2), np.uint8)
    got = render_slices(volume, [0] * shape[0], shape[1:], noise=1.5, key=key)
    for _ in range(20):
        place = tuple(np.random.default_rng(0).integers(0, shape))
        index = (place[0] * shape[1] + place[1]) * shape[2] + place[2]
        bits = lowbias32(int(index) * (key[1] | 1) + key[0] & 0xFFFFFFFF)
        z = (sum(bits.to_bytes(4)) - 510) / np.sqrt(4 * (256**2 - 1) / 12)
        assert got[place] == pytest.approx(1.5 * z, abs=2e-6)


def noise_of(render_slices, key, shape=(6, 64, 96), noise=1.0):
    return render_slices(
        np.zeros((1, 2, 2), np.uint8), [0] * shape[0], shape[1:], noise=noise, key=key
    )


def test_noise_is_standard_normal_but_for_its_tails(render_slices):
    keys = np.random.default_rng(0).integers(0, 2**32, (4, 2))
    values = np.stack([noise_of(render_slices, key) for key in keys]).ravel()
    # 147,456 values: the mean is within 0.011, the deviation within 0.008 (four sigma).
    assert values.mean() == pytest.approx(0, abs=0.011)
    assert values.std() == pytest.approx(1, abs=0.008)
    # The sum of four uniform numbers: excess kurtosis -1.2 / 4, nothing beyond sqrt(12).
    assert np.mean(values.astype(np.float64) ** 4) == pytest.approx(2.7, abs=0.06)
    assert abs(np.mean(values.astype(np.float64) ** 3)) < 0.04
    assert np.abs(values).max() <= np.sqrt(12)


def test_noise_is_independent_over_columns_rows_slices_and_keys(render_slices):
    first, second = (
        noise_of(render_slices, (1, 1)),
        noise_of(render_slices, (2**31 + 1, 2**30 + 12345)),
    )
    start, factor = noise_of(render_slices, (2, 1)), noise_of(render_slices, (1, 3))
    pairs = {
        "columns": (first[..., 1:], first[..., :-1]),
        "columns, any factor": (second[..., 1:], second[..., :-1]),
        "rows": (first[:, 1:], first[:, :-1]),
        "rows, any factor": (second[:, 1:], second[:, :-1]),
        "slices": (first[1:], first[:-1]),
        "slices, any factor": (second[1:], second[:-1]),
        "keys": (first, second),
        "starts": (first, start),
        "factors": (first[..., 1:], factor[..., 1:]),
    }
    for name, (a, b) in pairs.items():
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(a.size), name
        assert not np.isclose(a, b).mean() > 0.01, name


def test_noise_is_a_function_of_key_and_voxel_and_scales(render_slices, random_volume):
    volume = random_volume(np.random.default_rng(3), np.uint8, (3, 64, 96))
    assert noise_of(render_slices, (7, 8)).tobytes() == noise_of(render_slices, (7, 8)).tobytes()
    quarter = noise_of(render_slices, (7, 8), noise=0.25)
    assert quarter == pytest.approx(noise_of(render_slices, (7, 8)) / 4, abs=1e-6)
    quiet = render_slices(volume, [0, 1, 2], (64, 96))
    loud = render_slices(volume, [0, 1, 2], (64, 96), noise=1.0, key=(7, 8))
    assert loud - quiet == pytest.approx(noise_of(render_slices, (7, 8))[:3], abs=1e-4)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40)),
    box=st.tuples(*[st.integers(-5, 45)] * 6),
    stored=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_the_box_that_is_cut_out_is_zero_and_nothing_else(render_slices, shape, box, stored):
    volume = np.full((1, 40, 40), 9, np.uint8)
    got = render_slices(volume, [0] * shape[0], shape[1:], cutout=box, stored=stored)
    expected = np.ones(shape, bool)
    d, h, w = np.indices(shape)
    inside = (d >= box[0]) & (h >= box[1]) & (w >= box[2])
    expected[inside & (d < box[3]) & (h < box[4]) & (w < box[5])] = False
    assert np.array_equal(got != 0, expected)


def odd_numbers():
    """Float32 numbers of every kind: all halves and their ties, and bits at random."""
    rng = np.random.default_rng(0)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    upper = np.arange(2**16, dtype=np.uint32) << 16
    near = [(upper + np.uint32(k)).view(np.float32) for k in (0, 1, 0x7FFF, 0x8000, 0x8001)]
    ties = [
        (halves.view(np.uint32) + np.uint32(k)).view(np.float32) for k in (0xFFF, 0x1000, 0x1001)
    ]
    with np.errstate(over="ignore"):
        subnormal = (np.arange(-5000, 5000) * 2.0**-26).astype(np.float32)
    random = rng.integers(0, 2**32, 200_000, np.uint32).view(np.float32)
    usual = rng.normal(size=50_000).astype(np.float32)
    named = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.996, 65520, 1e-45, 3e38])
    return np.concatenate([halves, *near, *ties, subnormal, random, usual, named])


@pytest.mark.parametrize(
    ("store", "kind"), [(store_bfloat16, torch.bfloat16), (store_float16, torch.float16)]
)
def test_the_stored_bits_are_those_of_torch(store, kind):
    values = odd_numbers()
    got = np.empty(values.size, np.int16)
    store(got, values, values.size)
    expected = torch.from_numpy(values).to(kind).view(torch.int16).numpy()
    nan = np.isnan(values)
    assert np.array_equal(got[~nan], expected[~nan])
    # Which of the many a NaN becomes is nobody's promise; that it stays one is.
    assert torch.from_numpy(got[nan]).view(kind).isnan().all()


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_sixteen_bits_are_the_float32_sample_rounded(render_slices, random_volume, stored):
    volume = random_volume(np.random.default_rng(3), np.uint8, (3, 64, 96))
    matrix = [[0.9, 0.2, 3.1], [-0.2, 1.1, 4.2]]
    for steps in ({}, {"blur_sigma": 1.3, "gamma": 0.8, "bias": [0.1] * 5, "grid_hw": (30, 41)}):
        both = [
            render_slices(
                volume, [0, -1, 2], (50, 70), matrix=matrix, gain=0.01, offset=-1, noise=0.1,
                key=(5, 6), cutout=[0, 5, 6, 2, 20, 30], stored=s, **steps,
            )
            for s in ("float32", stored)
        ]  # fmt: skip
        kind = getattr(torch, stored)
        assert torch.equal(torch.from_numpy(both[0]).to(kind), torch.from_numpy(both[1]).view(kind))


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_the_light_pass_gives_the_same_bytes(render_slices, random_volume, stored):
    volume = random_volume(np.random.default_rng(3), np.uint8, (11, 64, 96))
    names = stored, f"light_{stored}"
    some = {"matrix": [[0.9, 0.2, 3], [-0.2, 1.1, 4]], "noise": 0.1, "cutout": [0, 5, 6, 2, 20, 30]}
    full, light = (
        render_slices(volume, [*range(11), -1], (50, 70), stored=s, **some) for s in names
    )
    assert full.tobytes() == light.tobytes()
