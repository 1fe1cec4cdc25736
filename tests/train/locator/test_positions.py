import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass, gaussian_filter

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.locator.positions import (
    annotated_places,
    patient_points,
    place_error,
    to_crop,
    to_volume,
    with_missing_levels,
)
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples

HALF_TURN = AugmentConfig(
    **AugmentConfig.none().model_dump()
    | {"rotation_degrees": 180, "scale": 0.3, "shear_degrees": 20, "shift_mm": 9}
)
MIRRORS = ("side_exchange", "mirror_front_back", "mirror_head_foot")


@given(st.integers(0, 2**32), st.floats(-50, 80), st.floats(-50, 80))
def test_a_place_comes_back_from_the_crop(seed, h, w):
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(0, 0.3, (2, 3)) + np.array([[2, 0, -9], [0, 1.5, 4]])).astype(np.float32)
    there = np.array([[h, w]])
    assert to_volume(to_crop(there, matrix), matrix) == pytest.approx(there, abs=1e-9)
    right_of_it = to_volume(to_crop(there, matrix) + np.array([1, 0]), matrix)
    assert right_of_it - there == pytest.approx(matrix[:, 0][::-1][None], abs=1e-9)


@pytest.mark.parametrize("mirror", [None, *MIRRORS])
@pytest.mark.parametrize("series_type", [SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2])
def test_what_lies_at_a_voxel_is_seen_by_the_matrix(spine, render_with_scipy, mirror, series_type):
    augment = HALF_TURN.model_copy(update={mirror: 1.0} if mirror else {})
    crop = CropConfig(slices=6, height=70, width=90, pixel_mm=1.1 if "axial" in series_type else 5)
    row = spine.rows_of(series_type)[0]
    plan = Plan(Samples.of_series(spine, [row]), crop, augment, batch=1, shuffle=True, seed=4)
    (height, width), rng = spine.volume(row).shape[1:], np.random.default_rng(0)
    for epoch in range(6):
        (view,) = plan.request(epoch, 0).views
        place = rng.uniform(0.35, 0.65, 2) * (height, width)
        rows, columns = np.indices((height, width))
        spot = np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 8)
        volume = np.zeros(spine.volume(row).shape)
        d = int(view.slices[2])
        volume[d] = spot
        rendered = np.nan_to_num(render_with_scipy(volume, view))
        assert [image.any() for image in rendered] == [s == d for s in view.slices]
        seen_wh = np.array(center_of_mass(gaussian_filter(rendered[2], 0.1)))[::-1]
        assert to_crop(place[None], view.matrix)[0] == pytest.approx(seen_wh, abs=0.1)
        assert to_volume(seen_wh[None], view.matrix)[0] == pytest.approx(place, abs=0.2)


def test_annotated_places_are_those_of_the_points(phantoms):
    rows = [21, 20, 3]
    places = annotated_places(phantoms.cache, rows)
    assert places[:2] == pytest.approx(phantoms.places[[21, 20]])
    known = ~np.isnan(places[2]).any(axis=1)
    assert places[2][known] == pytest.approx(phantoms.places[3][known])
    everywhere = annotated_places(phantoms.cache, range(20))
    assert 0 < np.isnan(everywhere).any(axis=2).sum() < 40
    assert annotated_places(phantoms.cache, []).shape == (0, 5, 3)


def test_errors_are_millimetres_of_the_patient(phantoms):
    rows = [20, 21]
    places = phantoms.places[rows] + [0.5, 0.75, -1.0]
    error = place_error(phantoms.cache, rows, places)
    # 4 mm a slice, row and column.
    assert error.median_mm == pytest.approx(4 * np.sqrt(0.25 + 0.5625 + 1))
    assert error.p95_mm == pytest.approx(error.median_mm)
    assert error.discs == 10
    places[0, 0] += [0, 100, 0]
    assert place_error(phantoms.cache, rows, places).p95_mm > 100


@pytest.fixture(scope="module")
def stacked(tmp_path_factory, write_cache, point):
    """An axial series of two stacks that lie far from each other, with a point in each."""
    upper = np.array([[0, 0, 0.5, 0], [0, 0.5, 0, 0], [-4.0, 0, 0, 100], [0, 0, 0, 1]])
    lower = np.array([[0, 0, 0.5, 10], [0, 0.5, 0, 0], [-3.0, 0, 0, 40], [0, 0, 0, 1]])
    volume = ("1", "ax", SeriesType.AXIAL_T2, np.zeros((9, 40, 40), np.uint8))
    points = [point("1", "ax", 0, (1, 9, 9)), point("1", "ax", 4, (7, 9, 9))]
    root = tmp_path_factory.mktemp("stacked") / "cache"
    placed = ((4, upper), (5, lower))
    return Cache(write_cache(root, [(*volume, placed)], {}, points=points))


def test_a_place_lies_by_its_own_stack(stacked):
    places = np.full((1, 5, 3), np.nan)
    places[0, 0], places[0, 1], places[0, 4] = (3.4, 10, 20), (3.5, 10, 20), (8, 10, 20)
    points = patient_points(stacked, [0], places)
    assert points[0, 0] == pytest.approx([10, 5, 100 - 4 * 3.4])
    assert points[0, 1] == pytest.approx([20, 5, 40 + 3 * 0.5])
    assert points[0, 4] == pytest.approx([20, 5, 40 - 3 * 4])
    assert np.isnan(points[0, 2]).all()
    places[0, [0, 4]] = (1, 9, 9), (3, 9, 9)
    # From slice 3, the last of the upper stack, to slice 7, the fourth of the lower one.
    error = place_error(stacked, [0], places)
    assert error.discs == 2
    assert error.median_mm == pytest.approx(np.hypot(10, 88 - (40 - 3 * 3)) / 2)


def test_series_without_points_have_no_error(spine):
    assert place_error(spine, [0, 1], np.zeros((2, 5, 3))) is None


def test_unknown_levels_lie_on_a_line_with_the_nearest_two():
    places = np.arange(5.0)[:, None] * [0.5, 8, -1] + [4, 10, 20]
    wrong = places.copy()
    wrong[[0, 2, 4]] = 777
    known = np.array([False, True, False, True, False])
    assert with_missing_levels(wrong[None], known)[0] == pytest.approx(places)
    bent = places.copy()
    bent[0] = 0
    only_last = np.array([True, True, True, True, False])
    wrong = np.where(only_last[:, None], bent, np.nan)
    assert with_missing_levels(wrong[None], only_last)[0] == pytest.approx(bent)
    assert np.array_equal(with_missing_levels(bent[None], np.ones(5, bool))[0], bent)
    with pytest.raises(InputError, match=r"got \['l2_l3'\].*two or more"):
        with_missing_levels(places[None], np.arange(5) == 1)
