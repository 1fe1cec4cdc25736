from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig, coarsened, mirrored, sample_matrices
from lumbar.train.plan.random_numbers import UniformNumbers
from lumbar.train.plan.view import N_UNIFORM

STILL = AugmentConfig.none()
FIRM = {"source_hw": (65, 65), "spacing_mm": (1.0, 1.0), "pixel_mm": 1.0}
NOWHERE = (np.nan, np.nan)
CROP = CropConfig(slices=1, height=33, width=33, pixel_mm=1)


def sample(augment, seed, *, crop=CROP, centre_hw=NOWHERE, **image):
    """Return the matrix of one image by the numbers of a seed."""
    of_views = {name: np.array([value]) for name, value in (FIRM | image).items()}
    uniform = UniformNumbers(np.random.default_rng(seed).random((N_UNIFORM, 1)))
    centres_hw = np.array([centre_hw], np.float64)
    (matrix,) = sample_matrices(crop, augment, centre_hw=centres_hw, uniform=uniform, **of_views)
    return matrix


def only(**strengths):
    return STILL.model_copy(update=strengths)


def parts(matrix):
    """Take a matrix of square pixels of 1 mm apart into degrees, zoom, shear and shift."""
    right, below = matrix[:, 0], matrix[:, 1]
    zoom, angle = np.hypot(*right), np.arctan2(right[1], right[0])
    cos, sin = np.cos(angle), np.sin(angle)
    upright = np.array([[cos, sin], [-sin, cos]]) @ below / zoom
    return SimpleNamespace(
        degrees=np.rad2deg(angle),
        zoom=zoom,
        shear_degrees=np.rad2deg(np.arctan2(upright[0], upright[1])),
        shift=matrix @ (16, 16, 1) - 32,
    )


def to_mm(matrix, points_wh, spacing_hw):
    """Return where output pixels lie in the source, in its own millimetres."""
    return (points_wh @ matrix[:, :2].T + matrix[:, 2]) * np.array(spacing_hw)[::-1]


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    source=st.tuples(st.integers(16, 512), st.integers(16, 512)),
    scale=st.floats(0, 0.5),
    rotation=st.floats(0, 180),
    shift=st.floats(0, 30),
)
def test_the_matrix_scales_turns_and_shifts_millimetres(
    seed, spacing, source, scale, rotation, shift
):
    crop = CropConfig(slices=1, height=48, width=80)
    augment = AugmentConfig(rotation_degrees=rotation, scale=scale, shift_mm=shift)
    image = {"source_hw": source, "spacing_mm": np.array(spacing), "pixel_mm": 0.7}
    matrix = sample(augment, seed, crop=crop, **image)
    # Three points an output millimetre apart: the centre, one to the right, one below.
    centre, step = np.array([39.5, 23.5]), 1 / 0.7
    points = centre + np.array([[0, 0], [step, 0], [0, step]])
    middle, right, below = to_mm(matrix, points, spacing)
    right, below = right - middle, below - middle
    # Float32 holds a place of 500 pixels to 3e-5.
    near = {"abs": 1e-3}
    assert np.linalg.norm(right) == pytest.approx(np.linalg.norm(below), **near)
    assert right @ below == pytest.approx(0, **near)
    assert right[0] * below[1] - right[1] * below[0] > 0, "a matrix that mirrors"
    assert 1 / (1 + scale) - 1e-3 <= np.linalg.norm(right) <= 1 + scale + 1e-3
    assert abs(np.rad2deg(np.arctan2(right[1], right[0]))) <= rotation + 0.1
    source_centre = (np.array(source)[::-1] - 1) / 2 * np.array(spacing)[::-1]
    assert np.abs(middle - source_centre).max() <= shift + 1e-3


@settings(max_examples=60)
@given(
    seed=st.integers(0, 999),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    shear=st.floats(1, 45),
)
def test_a_shear_slants_the_columns_and_keeps_rows_and_areas(seed, spacing, shear):
    matrix = sample(only(shear_degrees=shear), seed, spacing_mm=np.array(spacing))
    middle, right, below = to_mm(matrix, np.array([[16, 16], [17, 16], [16, 17]]), spacing)
    assert right - middle == pytest.approx([1, 0], abs=1e-3)
    slant, down = below - middle
    assert down == pytest.approx(1, abs=1e-3)
    assert 0 < abs(np.rad2deg(np.arctan(slant))) <= shear + 0.1


def test_sampled_matrices_fill_their_ranges():
    augment = AugmentConfig(rotation_degrees=20, scale=0.3, shift_mm=10, shear_degrees=15)
    sampled = [parts(sample(augment, seed)) for seed in range(2000)]
    angles = [d.degrees for d in sampled]
    zooms = [d.zoom for d in sampled]
    slants = [d.shear_degrees for d in sampled]
    shifts = np.array([d.shift for d in sampled])
    assert (min(angles), max(angles)) == pytest.approx((-20, 20), abs=0.3)
    assert (min(zooms), max(zooms)) == pytest.approx((1 / 1.3, 1.3), abs=0.01)
    assert (min(slants), max(slants)) == pytest.approx((-15, 15), abs=0.2)
    assert shifts.min(axis=0) == pytest.approx([-10, -10], abs=0.2)
    assert shifts.max(axis=0) == pytest.approx([10, 10], abs=0.2)
    assert abs(np.mean(angles)) < 1
    assert abs(np.mean(np.log(zooms))) < 0.02
    joint = np.corrcoef([angles, np.log(zooms), slants, *shifts.T])
    assert np.abs(joint - np.eye(5)).max() < 0.08, "two steps share a number"


ALL_ON = {"rotation_degrees": 20.0, "scale": 0.3, "shear_degrees": 15.0, "shift_mm": 10.0}


@pytest.mark.parametrize("off", ALL_ON)
@pytest.mark.parametrize("seed", range(5))
def test_switching_a_step_off_leaves_the_other_steps_as_they_were(off, seed):
    before = parts(sample(only(**ALL_ON), seed))
    after = parts(sample(only(**ALL_ON | {off: 0.0}), seed))
    of_step = {
        "rotation_degrees": ("degrees", 0),
        "scale": ("zoom", 1),
        "shear_degrees": ("shear_degrees", 0),
        "shift_mm": ("shift", 0),
    }
    for step, (part, nothing) in of_step.items():
        expected = nothing if step == off else getattr(before, part)
        assert getattr(after, part) == pytest.approx(expected, abs=1e-4)


@given(
    seed=st.integers(0, 999),
    centre=st.tuples(st.floats(0, 300), st.floats(0, 300)),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
)
def test_a_crop_turns_around_its_centre(seed, centre, spacing):
    augment = only(rotation_degrees=180.0, scale=0.5, shear_degrees=30.0)
    crop = CropConfig(slices=1, height=48, width=80, centre="random")
    image = {"source_hw": (300, 300), "spacing_mm": np.array(spacing)}
    matrix = sample(augment, seed, crop=crop, centre_hw=np.array(centre), **image)
    assert matrix @ (39.5, 23.5, 1) == pytest.approx(centre[::-1], abs=1e-3)


def test_a_random_crop_lies_wherever_it_fits_and_nowhere_else():
    crop = CropConfig(slices=1, height=20, width=40, centre="random")
    image = {"source_hw": (90, 65), "spacing_mm": np.array([0.5, 0.8]), "pixel_mm": 1.0}
    matrices = [sample(STILL, seed, crop=crop, **image) for seed in range(1500)]
    # Edges of pixels: the crop's outer edges reach the image's and do not pass them.
    first = np.array([m @ (-0.5, -0.5, 1) for m in matrices])
    last = np.array([m @ (39.5, 19.5, 1) for m in matrices])
    assert first.min(axis=0) == pytest.approx([-0.5, -0.5], abs=0.2)
    assert last.max(axis=0) == pytest.approx([64.5, 89.5], abs=0.2)
    assert (first > -0.501).all()
    assert (last < [64.501, 89.501]).all()
    assert np.corrcoef(first.T)[0, 1] == pytest.approx(0, abs=0.08)


def test_a_random_crop_larger_than_the_image_is_in_its_middle():
    crop = CropConfig(slices=1, height=100, width=100, centre="random")
    assert sample(STILL, 4, crop=crop) @ (49.5, 49.5, 1) == pytest.approx([32, 32], abs=1e-4)


MATRICES = st.builds(
    lambda values: np.array(values).reshape(2, 3),
    st.lists(st.floats(-3, 3), min_size=6, max_size=6),
)


@given(matrix=MATRICES, axis=st.sampled_from([1, 2]), size=st.integers(1, 90))
def test_a_mirrored_matrix_renders_pixels_from_the_other_end(matrix, axis, size):
    along = np.array([axis == 1, axis == 2])
    got = mirrored(matrix, along, (size, size))
    for here in range(size):
        there = size - 1 - here
        one, other = ((7, here), (7, there)) if axis == 1 else ((here, 7), (there, 7))
        assert got @ (*one, 1) == pytest.approx(matrix @ (*other, 1), abs=1e-3)
    assert mirrored(got, along, (size, size)) == pytest.approx(matrix, abs=1e-9)


@given(
    matrix=MATRICES,
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    grid=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_a_coarser_grid_covers_the_same_crop_edge_to_edge(matrix, size, grid):
    got = coarsened(matrix, size, np.array(grid, float))
    (height, width), (rows, columns) = size, grid
    for down in (0, 1):
        for right in (0, 1):
            corner = (right * columns - 0.5, down * rows - 0.5, 1)
            expected = matrix @ (right * width - 0.5, down * height - 0.5, 1)
            assert got @ corner == pytest.approx(expected, abs=2e-3)


@given(matrix=MATRICES)
def test_a_grid_of_the_same_size_is_the_same_grid(matrix):
    assert (coarsened(matrix, (48, 80), np.array([48.0, 80.0])) == matrix).all()
