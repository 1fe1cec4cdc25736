"""A finding is in the picture: near its disc, on its side, and the worse, the narrower."""

from collections.abc import Callable

import numpy as np
import pytest

from lumbar.cache.names import SHOWN_CONDITIONS, SeriesType
from lumbar.synth.study import SampledStudy, render_series

Sample = Callable[..., SampledStudy]

TYPE_OF_CONDITION = {
    condition: kind for kind, conditions in SHOWN_CONDITIONS.items() for condition in conditions
}
BRIGHT = 0.55
VISIBLE = 0.03
REACH_MM = 16.0


Pictures = Callable[[SampledStudy, SeriesType], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """Slices, and the LPS position of each pixel, of the first series of a type without noise."""
    rendered: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}

    def render(study: SampledStudy, kind: SeriesType) -> tuple[np.ndarray, np.ndarray]:
        key = (study.entropy, study.grades.tobytes(), kind, study.series[0].rows)
        if key in rendered:
            return rendered[key]
        number = next(i for i, series in enumerate(study.series) if series.series_type is kind)
        series = study.series[number]
        row, column = np.mgrid[: series.rows, : series.columns]
        images, positions = [], []
        for stack, index, image in render_series(study, number, noise=0.0):
            images.append(image)
            positions.append(
                stack.position(index)
                + row[..., None] * series.row_spacing * stack.along_rows
                + column[..., None] * series.column_spacing * stack.along_columns
            )
        rendered[key] = np.array(images), np.array(positions)
        return rendered[key]

    return render


@pytest.mark.parametrize("condition", range(5))
@pytest.mark.parametrize("level", [1, 4])
def test_a_finding_changes_its_level_and_side_only(
    sample: Sample, pictures: Pictures, condition: int, level: int
) -> None:
    kind = TYPE_OF_CONDITION[condition]
    normal = sample(3, {}, 112)
    severe = sample(3, {(condition, level): 2}, 112)
    before, positions = pictures(normal, kind)
    after, _ = pictures(severe, kind)
    changed = positions[np.abs(after - before) > VISIBLE]
    assert len(changed) > 20
    landmark = normal.anatomy.landmark(condition, level)
    assert np.linalg.norm(changed - landmark, axis=1).max() < REACH_MM
    if condition:
        side = 1 if condition in {1, 3} else -1
        middle = normal.anatomy.landmark(0, level)
        lateral = normal.anatomy.axes_lps(normal.anatomy.discs[level].s)[0]
        assert (side * ((changed - middle) @ lateral)).min() > 0


@pytest.mark.parametrize("condition", range(5))
@pytest.mark.parametrize("seed", [3, 5])
def test_the_worse_the_narrower(
    sample: Sample, pictures: Pictures, condition: int, seed: int
) -> None:
    kind = TYPE_OF_CONDITION[condition]
    bright = []
    for severity in range(3):
        study = sample(seed, {(condition, 3): severity}, 112)
        images, positions = pictures(study, kind)
        away = np.linalg.norm(positions - study.anatomy.landmark(condition, 3), axis=-1)
        bright.append(int(np.count_nonzero(images[away < 7] > BRIGHT)))
    normal, moderate, severe = bright
    assert normal > 1.2 * moderate
    assert moderate > 1.2 * severe


@pytest.mark.parametrize(("condition", "other"), [(1, 2), (2, 1), (3, 4), (4, 3)])
def test_the_other_side_stays_as_it_is(
    sample: Sample, pictures: Pictures, condition: int, other: int
) -> None:
    kind = TYPE_OF_CONDITION[condition]
    before, positions = pictures(sample(9, {}, 112), kind)
    study = sample(9, {(condition, 1): 2, (condition, 3): 2}, 112)
    after, _ = pictures(study, kind)
    for level in range(5):
        near = np.linalg.norm(positions - study.anatomy.landmark(other, level), axis=-1) < 6
        assert np.abs(after - before)[near].max() < VISIBLE


def test_severities_change_no_other_random_number(sample: Sample) -> None:
    """Two patients who differ in one grade have the same sizes, pose and acquisition."""
    normal, severe = sample(2, {}), sample(2, {(0, 2): 2})
    np.testing.assert_array_equal(normal.anatomy.shift, severe.anatomy.shift)
    assert [disc.s for disc in normal.anatomy.discs] == [disc.s for disc in severe.anatomy.discs]
    for one, other in zip(normal.series, severe.series, strict=True):
        assert (one.rows, one.columns, one.row_spacing) == (
            other.rows,
            other.columns,
            other.row_spacing,
        )
        np.testing.assert_array_equal(one.stacks[0].origin, other.stacks[0].origin)


def test_noise_is_rician(sample: Sample) -> None:
    """In air the magnitude of complex noise has mean 1.2533 and deviation 0.6551 sigma."""
    study = sample(4, {}, 128)
    number = next(
        i for i, one in enumerate(study.series) if one.series_type is SeriesType.SAGITTAL_T2
    )
    clean = next(render_series(study, number, noise=0.0))[2]
    noisy = next(render_series(study, number, noise=0.05))[2]
    air = noisy[clean == 0]
    assert air.size > 500
    # Interpolation to the matrix of the file lowers the deviation, not the mean.
    assert 0.3 < air.std() / air.mean() < 0.6551 / 1.2533 + 0.02
