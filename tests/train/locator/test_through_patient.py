"""Points of a study in its axial stacks: the geometry of generated studies, and planted cases."""

import numpy as np
import pytest

from lumbar.cache.format import Stack
from lumbar.cache.names import LEVELS, SeriesType
from lumbar.synth.study import sample_study
from lumbar.train.locator.through_patient import nearest_places, passing

MAX_MM = 5.0
N_STUDIES = 80


def acquired(study):
    """Return the axial series of a generated study: its stacks and the slices' shapes."""
    for series in study.series:
        if series.series_type is not SeriesType.AXIAL_T2:
            continue
        start, stacks = 0, []
        for one in series.stacks:
            affine = np.eye(4)
            affine[:3, 0] = one.step
            affine[:3, 1] = one.along_rows * series.row_spacing
            affine[:3, 2] = one.along_columns * series.column_spacing
            affine[:3, 3] = one.origin
            stacks.append(Stack(start, start + one.n_slices, affine))
            start += one.n_slices
        yield series, stacks


@pytest.fixture(scope="module")
def studies():
    return [
        sample_study(7, i, test=False, wanted=tuple(SeriesType)[:3], max_matrix=320)
        for i in range(N_STUDIES)
    ]


def points_of(study):
    return np.array([study.anatomy.landmark(0, level) for level in range(len(LEVELS))])


def test_every_level_lands_on_the_slice_that_the_generator_names(studies):
    kinds, right, total = set(), 0, 0
    for study in studies:
        points = points_of(study)
        for series, stacks in acquired(study):
            kinds.add(len(stacks))
            places = nearest_places(points, stacks, (series.rows, series.columns), max_mm=MAX_MM)
            for level, point in enumerate(points):
                stack, index, column, row = series.locate(point)
                wanted = [stacks[stack].start + index, row, column]
                total += 1
                right += np.allclose(places[level], wanted, atol=1e-6)
    assert kinds == {1, len(LEVELS)}  # one stack for all discs, and one for each
    assert right / total >= 0.99


def test_a_level_whose_stack_is_missing_is_absent(studies):
    invented = missing = 0
    for study in studies:
        points = points_of(study)
        for series, stacks in acquired(study):
            if len(stacks) == 1:
                continue
            for level, point in enumerate(points):
                own = series.locate(point)[0]
                others = [s for n, s in enumerate(stacks) if n != own]
                places = nearest_places(
                    points, others, (series.rows, series.columns), max_mm=MAX_MM
                )
                missing += 1
                invented += not np.isnan(places[level]).all()
                kept = [at for at in range(len(LEVELS)) if at != level]
                assert not np.isnan(places[kept]).any()
    assert missing > N_STUDIES
    assert invented == 0


def axial(z_mm, *, depth=5, step=4.0, start=0):
    """Return a stack of straight axial slices of 0.5 mm pixels, the first at ``z_mm``."""
    affine = np.array([[0, 0, 0.5, -40], [0, 0.5, 0, -40], [-step, 0, 0, z_mm], [0, 0, 0, 1.0]])
    return Stack(start, start + depth, affine)


def points_at(*z_mm):
    points = np.full((len(LEVELS), 3), np.nan)
    points[: len(z_mm)] = [(0.0, 0.0, z) for z in z_mm]
    return points


def test_of_two_stacks_that_overlap_the_nearer_slice_is_taken():
    near, far = axial(11.0, start=5), axial(12.5)
    places = nearest_places(points_at(3.1), [far, near], (160, 160), max_mm=MAX_MM)
    assert places[0].tolist() == [5 + 2, 80.0, 80.0]


@pytest.mark.parametrize(("beyond_mm", "shown"), [(4.9, True), (5.1, False)])
def test_a_stack_that_ends_too_far_from_a_point_does_not_show_it(beyond_mm, shown):
    found = passing(points_at(8.0 + beyond_mm), axial(8.0), (160, 160), max_mm=MAX_MM)
    assert found.distance_mm[0] == pytest.approx(beyond_mm)
    assert (not np.isnan(found.places[0, 0])) == shown


def test_a_point_beside_the_picture_is_not_shown():
    found = passing(points_at(0.0), axial(8.0), (160, 79), max_mm=MAX_MM)
    assert np.isnan(found.places).all()


def test_an_unknown_point_has_no_place():
    places = nearest_places(points_at(0.0), [axial(8.0)], (160, 160), max_mm=MAX_MM)
    assert not np.isnan(places[0]).any()
    assert np.isnan(places[1:]).all()
