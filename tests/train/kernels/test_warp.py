import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from lumbar.train.kernels.render import gather_slices


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


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.uint8, np.int16]),
    source=st.tuples(st.integers(1, 20), st.integers(1, 60), st.integers(1, 60)),
    target=st.tuples(st.integers(1, 20), st.integers(1, 80), st.integers(1, 80)),
    zoom=st.floats(0.05, 40),
)
def test_the_pass_equals_scipy_at_any_matrix(
    render_slices, random_volume, seed, dtype, source, target, zoom
):
    rng = np.random.default_rng(seed)
    volume = random_volume(rng, dtype, source)
    slices = rng.integers(0, source[0], target[0]).tolist()
    shape_hw = target[1:]
    linear = rng.normal(size=(2, 2)) * zoom
    # Some place of the target falls on some place of the source, often at its edge.
    inside = rng.uniform(0, 1, 2) * (source[2], source[1])
    there = linear @ (rng.uniform(0, 1, 2) * shape_hw[::-1])
    matrix = np.column_stack([linear, inside - there])
    got = render_slices(volume, slices, shape_hw, matrix=matrix)
    steepest = float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min)
    # A place is held in float32: the error grows with how far the places lie apart.
    reach = 1 + np.abs(matrix).max() * max(*shape_hw, 1)
    assert got == pytest.approx(
        reference(volume, slices, matrix, shape_hw), abs=(5e-5 + 4e-7 * reach) * steepest
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_the_identity_copies_every_pixel_and_a_whole_shift_leaves_the_picture(
    render_slices, random_volume, identity, dtype
):
    volume = random_volume(np.random.default_rng(0), dtype, (3, 7, 9))
    assert np.array_equal(render_slices(volume, [2, 0], (7, 9)), volume[[2, 0]])
    for across, down in ((9, 0), (-9, 0), (0, 7), (0, -7), (1e6, -1e6), (1e30, 1e30)):
        shifted = identity + np.array([[0, 0, across], [0, 0, down]], np.float32)
        assert not render_slices(volume, [1], (7, 9), matrix=shifted).any()
    half = identity + np.array([[0, 0, -0.5], [0, 0, 0]], np.float32)
    edge = render_slices(volume, [0], (7, 9), matrix=half)[0, :, 0]
    assert edge == pytest.approx(volume[0, :, 0] / 2)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 30), (2, 30, 1), (1, 2, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_a_source_of_one_pixel_is_a_source(render_slices, random_volume, identity, shape, dtype):
    volume = random_volume(np.random.default_rng(5), dtype, shape)
    shifted = identity - np.array([[0, 0, 3.25], [0, 0, 2.5]], np.float32)
    got = render_slices(volume, [0], (40, 40), matrix=shifted)
    expected = reference(volume, [0], shifted, (40, 40))
    assert got == pytest.approx(expected, abs=1e-2)
    assert got.any()


def test_gain_and_offset_apply_to_the_stored_value_and_outside_of_it(render_slices, random_volume):
    volume = random_volume(np.random.default_rng(2), np.int16, (2, 9, 9))
    got = render_slices(volume, [0, 1], (11, 9), gain=0.25, offset=-3.5)
    assert got[:, :9] == pytest.approx(volume * 0.25 - 3.5, rel=1e-5, abs=1e-3)
    assert (got[:, 9:] == -3.5).all()


def test_a_slice_that_is_not_there_is_zero_whatever_the_numbers(render_slices):
    volume = np.full((2, 6, 6), 99, np.uint8)
    slices = [0, -1, 1, -1] * 5
    got = render_slices(volume, slices, (6, 6), gain=2, offset=5, noise=3, bias=0.1, blur_sigma=1)
    assert not got[1::2].any()
    assert (got[::2] > 100).all()
    assert not render_slices(volume, [-1, -1], (6, 6), offset=5).any()


@pytest.mark.parametrize("axis", ["w", "h"])
def test_voxels_that_say_their_place_are_read_where_the_matrix_points(render_slices, axis):
    spacing_h, spacing_w = 0.75, 0.6
    h, w = np.indices((96, 128))
    per_mm = 300
    place_mm = w * spacing_w if axis == "w" else h * spacing_h
    volume = np.rint(place_mm * per_mm).astype(np.int16)[None]
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle, zoom = rng.uniform(-0.3, 0.3), rng.uniform(0.8, 1.1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = turn * 0.9 * zoom / np.array([[spacing_w], [spacing_h]])
        centre = np.array([63.5, 47.5]) + rng.uniform(-4, 4, 2)
        matrix = np.column_stack([linear, centre - linear @ [23.5, 19.5]]).astype(np.float32)
        got_mm = render_slices(volume, [0], (40, 48), matrix=matrix, gain=1 / per_mm)[0]
        oh, ow = np.indices((40, 48))
        row, spacing_mm = (matrix[0], spacing_w) if axis == "w" else (matrix[1], spacing_h)
        pixels = row[0] * ow + row[1] * oh + row[2]
        assert np.abs(got_mm / spacing_mm - pixels).max() < 0.05


def test_read_only_memory_is_read(render_slices, random_volume, tmp_path):
    volume = random_volume(np.random.default_rng(1), np.uint8, (2, 8, 8))
    volume.tofile(tmp_path / "v")
    mapped = np.memmap(tmp_path / "v", np.uint8, "r", shape=(2, 8, 8))
    assert np.array_equal(render_slices(mapped, [1], (8, 8)), volume[[1]])


READ_AT_THE_EDGE = """
import ctypes, mmap, sys
import numpy as np
from lumbar.train.plan import pixel_params
from lumbar.train.kernels.render import RENDERERS

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
page = mmap.PAGESIZE
def between_closed_pages(volume, at_end):
    pages = -(-volume.nbytes // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    whole = np.frombuffer(memory, np.uint8)
    first = (pages + 1) * page - volume.nbytes if at_end else page
    inside = whole[first : first + volume.nbytes].view(volume.dtype).reshape(volume.shape)
    inside[:] = volume
    for closed in (0, pages + 1):
        assert libc.mprotect(whole.ctypes.data + closed * page, page, 0) == 0
    return inside

rng = np.random.default_rng(0)
for trial in range(60):
    dtype = (np.uint8, np.int16)[trial % 2]
    shape = tuple(rng.integers(1, (3, 50, 50)))
    volume = rng.integers(1, 100, shape).astype(dtype)
    outs = []
    linear = rng.normal(size=(2, 2)) * 1.5
    matrix = np.column_stack([linear, rng.uniform(0, 40, 2)]).astype(np.float32)
    if trial < 20:
        matrix = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    packed = np.zeros(pixel_params.COUNT, np.float32)
    packed[[pixel_params.GAIN, pixel_params.GAMMA]] = 1
    packed[[pixel_params.GRID_H, pixel_params.GRID_W]] = 60
    slices = np.array([0, shape[0] - 1], np.int32)
    for source in (volume, between_closed_pages(volume, True), between_closed_pages(volume, False)):
        out = np.empty((2, 60, 60), np.float32)
        RENDERERS["float32"](out, source, slices, matrix, packed, np.zeros(2, np.uint32))
        outs.append(out)
    assert np.array_equal(outs[0], outs[1]) and np.array_equal(outs[0], outs[2])
print("read", flush=True)
import os
os._exit(0)
"""


def test_nothing_before_or_behind_the_volume_is_read():
    ran = subprocess.run(
        [sys.executable, "-c", READ_AT_THE_EDGE], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "read\n"), ran.stderr


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_gathering_copies_the_named_slices(random_volume, dtype):
    volume = random_volume(np.random.default_rng(4), dtype, (5, 6, 7))
    out = np.full((4, 6, 7, 1), 77, dtype)
    gather_slices(out, volume, np.array([4, 0, -1, 4], np.int32))
    assert np.array_equal(out[[0, 1, 3], ..., 0], volume[[4, 0, 4]])
    assert not out[2].any()
