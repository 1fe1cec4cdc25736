from collections.abc import Callable

import numpy as np
import pytest

from lumbar.cache.names import SeriesType
from lumbar.synth.geometry import Series
from lumbar.synth.study import SampledStudy

Sample = Callable[..., SampledStudy]


def series_of(study: SampledStudy, kind: SeriesType) -> Series:
    return next(series for series in study.series if series.series_type is kind)


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


@pytest.mark.parametrize("seed", range(5))
def test_spine_coordinates_go_both_ways(sample: Sample, seed: int) -> None:
    curve = sample(seed, {}).anatomy.curve
    rng = np.random.default_rng(seed)
    wanted = np.column_stack(
        [rng.uniform(-25, 25, 60), rng.uniform(-100, 90, 60), rng.uniform(-20, 45, 60)]
    )
    points = np.array([curve.to_body(*row) for row in wanted.tolist()], np.float32)
    x, s, n = curve.from_body(*(points[:, axis][:, None] for axis in range(3)))
    found = np.column_stack([x[:, 0], s[:, 0], n[:, 0]])
    np.testing.assert_allclose(found, wanted, atol=0.35)


@pytest.mark.parametrize("seed", range(8))
def test_every_landmark_is_inside_its_series(sample: Sample, seed: int) -> None:
    study = sample(seed, {})
    for series in study.series:
        for condition in range(5):
            for level in range(5):
                point = study.anatomy.landmark(condition, level)
                stack, index, column, row = series.locate(point)
                assert 0 < column < series.columns
                assert 0 < row < series.rows
                pixel = (
                    series.stacks[stack].position(index)
                    + column * series.column_spacing * series.stacks[stack].along_columns
                    + row * series.row_spacing * series.stacks[stack].along_rows
                )
                assert np.linalg.norm(pixel - point) < 0.52 * series.slice_step


def test_left_has_the_larger_x(sample: Sample) -> None:
    for seed in range(8):
        anatomy = sample(seed, {}).anatomy
        for left, right in ((1, 2), (3, 4)):
            for level in range(5):
                difference = anatomy.landmark(left, level) - anatomy.landmark(right, level)
                assert difference[0] > 15


def test_planes_lie_as_their_names_say(sample: Sample) -> None:
    for seed in range(8):
        study = sample(seed, {})
        for series in study.series:
            for stack in series.stacks:
                assert np.isclose(stack.along_columns @ stack.along_rows, 0, atol=1e-9)
                across = np.abs(np.cross(stack.along_columns, stack.along_rows))
                axial = series.series_type is SeriesType.AXIAL_T2
                assert np.argmax(across) == (2 if axial else 0)
                assert abs(np.linalg.norm(stack.step) - series.slice_step) < 1e-9


def test_each_disc_has_a_stack_in_its_plane(sample: Sample) -> None:
    tilts = []
    for seed in range(12):
        study = sample(seed, {})
        series = series_of(study, SeriesType.AXIAL_T2)
        if len(series.stacks) == 1:
            continue
        assert len(series.stacks) == 5
        for level, disc in enumerate(study.anatomy.discs):
            stack = series.stacks[series.locate(study.anatomy.landmark(0, level))[0]]
            normal = np.cross(stack.along_columns, stack.along_rows)
            assert angle_deg(normal, study.anatomy.axes_lps(disc.s)[2]) < 8
        normals = [np.cross(stack.along_columns, stack.along_rows) for stack in series.stacks]
        tilts.append(max(angle_deg(normals[0], normal) for normal in normals))
    assert max(tilts) > 25


def test_instance_numbers_run_either_way(sample: Sample) -> None:
    for kind, axis in ((SeriesType.SAGITTAL_T1, 0), (SeriesType.AXIAL_T2, 2)):
        upward = [series_of(sample(seed, {}), kind).stacks[0].step[axis] > 0 for seed in range(60)]
        assert 0.15 < np.mean(upward) < 0.57


def test_stacks_are_not_always_in_order(sample: Sample) -> None:
    ordered = []
    for seed in range(40):
        heights = [
            stack.position(stack.n_slices // 2)[2]
            for stack in series_of(sample(seed, {}), SeriesType.AXIAL_T2).stacks
        ]
        ordered.append(heights == sorted(heights, reverse=True))
    assert 0.4 < np.mean(ordered) < 0.95


def test_sagittal_framing_is_that_of_the_public_points(sample: Sample) -> None:
    at_height, at_width = [], []
    for seed in range(60):
        study = sample(seed, {})
        series = series_of(study, SeriesType.SAGITTAL_T2)
        located = [series.locate(study.anatomy.landmark(0, level)) for level in range(5)]
        at_width += [column / series.columns for _, _, column, _ in located]
        at_height.append([row / series.rows for _, _, _, row in located])
    assert np.median(at_width) == pytest.approx(0.54, abs=0.03)
    np.testing.assert_allclose(
        np.median(at_height, axis=0), [0.28, 0.39, 0.51, 0.62, 0.72], atol=0.025
    )


def test_matrices_and_spacings_vary(sample: Sample) -> None:
    series = [one for seed in range(80) for one in sample(seed, {}, 512).series]
    shapes = {(one.rows, one.columns) for one in series}
    assert len(shapes) >= 8
    assert any(rows != columns for rows, columns in shapes)
    assert any(one.row_spacing != one.column_spacing for one in series)
    assert len({len(study.series) for study in (sample(seed, {}) for seed in range(80))}) > 1
