import numpy as np
import pytest

from lumbar.cache.labels import severities_of
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.samples import SeriesSet


def test_rows_shapes_and_spacing_are_those_of_the_table(spine):
    rows = spine.rows_of(SeriesType.SAGITTAL_T2)[::-1]
    series = SeriesSet.from_cache(spine, rows)
    assert len(series) == len(rows) == 39
    for place, row in enumerate(rows):
        assert series.row[place] == row
        assert tuple(series.shape[place]) == spine.volume(row).shape
        assert series.spacing_mm[place] == pytest.approx([3.2, 3.2])
        assert series.study_id[place] == spine.series["study_id"][row]


def test_grades_join_on_the_study_and_a_study_without_labels_is_unknown(spine):
    series = SeriesSet.from_cache(spine, spine.rows_of(SeriesType.SAGITTAL_T2))
    grades = dict(zip(spine.labels["study_id"], severities_of(spine.labels), strict=True))
    assert "s03" not in grades
    for study_id, severity in zip(series.study_id, series.severity, strict=True):
        assert severity.tolist() == list(grades.get(study_id, [-1] * 25))
    assert series.study_id.count("s02") == 2


def tilted(columns, degrees, spacing_mm):
    """Return an affine of unit columns, turned about the patient's y axis, times spacing."""
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array(columns, float).T * spacing_mm
    return affine


SAGITTAL = ([1, 0, 0], [0, 0, -1], [0, 1, 0])
AXIAL = ([0, 0, -1], [0, 1, 0], [1, 0, 0])
CORONAL = ([0, 1, 0], [0, 0, -1], [1, 0, 0])
TURNED = ([0, 0, -1], [1, 0, 0], [0, 1, 0])


@pytest.mark.parametrize("degrees", [-28, -10, 0, 10, 28])
def test_the_lateral_axis_is_a_direction_whatever_the_spacing(tmp_path, write_cache, degrees):
    planes = {"sag": (SAGITTAL, 0), "ax": (AXIAL, 2), "cor": (CORONAL, 2), "turned": (TURNED, 1)}
    volumes = [
        ("1", name, SeriesType.OTHER, np.zeros((2, 4, 5), np.uint8), tilted(columns, degrees, mm))
        for name, (columns, _) in planes.items()
        for mm in [(4.0, 0.5, 0.6)]
    ]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {}))
    series = SeriesSet.from_cache(cache, range(4))
    got = dict(zip(cache.series["series_id"], series.lateral_axis, strict=True))
    assert got == {name: axis for name, (_, axis) in planes.items()}
    assert series.spacing_mm == pytest.approx(np.tile([0.5, 0.6], (4, 1)))
