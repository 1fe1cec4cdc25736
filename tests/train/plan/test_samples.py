from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.cache.errors import InputError
from lumbar.cache.labels import severities_of
from lumbar.cache.names import CELLS, LEVELS, SERIES_TYPES, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan.samples import ABSENT, WHOLE_SPINE, Samples, patient_axes

T1, T2, AXIAL = SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2
SHOWN = {T1: "foraminal", T2: "spinal", AXIAL: "subarticular", SeriesType.OTHER: ""}
"""A word in the names of the conditions that a series type is annotated for."""


def test_rows_shapes_and_spacing_are_those_of_the_table(spine):
    rows = spine.rows_of(T2)[::-1]
    samples = Samples.of_series(spine, rows)
    assert len(samples) == len(rows) == 39
    assert samples.rows == rows[::-1]
    assert np.isnan(samples.centre_dhw).all()
    assert set(samples.level.tolist()) == {WHOLE_SPINE}
    for place, row in enumerate(rows):
        assert samples.row[place].tolist() == [row]
        assert tuple(samples.shape[place, 0]) == spine.volume(row).shape
        assert samples.spacing_mm[place, 0] == pytest.approx([3.2, 3.2])
        assert samples.study_id[place] == spine.series["study_id"][row]
        assert SERIES_TYPES[samples.series_type[place, 0]] == T2


def test_grades_join_on_the_study_and_a_study_without_labels_is_unknown(spine):
    samples = Samples.of_series(spine, spine.rows_of(T2))
    grades = dict(zip(spine.labels["study_id"], severities_of(spine.labels), strict=True))
    assert "s03" not in grades
    for study_id, severity in zip(samples.study_id, samples.severity, strict=True):
        assert severity.tolist() == list(grades.get(study_id, [-1] * 25))
    assert samples.study_id.count("s02") == 2


def test_no_rows_are_no_samples(spine):
    samples = Samples.of_series(spine, [])
    assert len(samples) == 0
    assert samples.rows == []
    assert samples.severity.shape == (0, 25)


# Whole studies: in `spine` s02 and s08 have two sagittal T2, s01 and s06 an axial, s04 only that.


def test_a_study_has_a_place_for_each_series_and_none_is_lost(spine):
    studies = sorted(set(spine.series["study_id"]))
    samples = Samples.of_studies(spine, studies, (T2, AXIAL))
    assert samples.study_id == tuple(studies)
    assert samples.row.shape == (38, 3), "two sagittal ones at most, and an axial one"
    assert samples.rows == list(range(spine.series.height))
    of_place = [SERIES_TYPES[t] for t in samples.series_type[0]]
    assert of_place == [T2, T2, AXIAL]
    assert (samples.series_type == samples.series_type[0]).all()
    for study_id, rows in zip(samples.study_id, samples.row, strict=True):
        for place, row in enumerate(rows):
            if row != ABSENT:
                assert spine.series["study_id"][int(row)] == study_id
                assert spine.series["series_type"][int(row)] == of_place[place]
    there = {s: (row != ABSENT).tolist() for s, row in zip(studies, samples.row, strict=True)}
    assert there["s00"] == [True, False, False]
    assert there["s01"] == [True, False, True]
    assert there["s02"] == [True, True, False]
    assert there["s04"] == [False, False, True]


def test_places_stand_in_the_order_of_the_given_types(spine):
    samples = Samples.of_studies(spine, ["s02", "s01"], (AXIAL, T2))
    assert [SERIES_TYPES[t] for t in samples.series_type[0]] == [AXIAL, T2, T2]
    assert samples.study_id == ("s02", "s01")
    assert (samples.row != ABSENT).tolist() == [[False, True, True], [True, True, False]]


def test_studies_with_none_of_the_types_are_left_out(spine):
    samples = Samples.of_studies(spine, ["s00", "s01", "s04", "s06"], (AXIAL,))
    assert samples.study_id == ("s01", "s04", "s06")
    assert samples.row.shape == (3, 1)
    assert len(Samples.of_studies(spine, ["s00", "s01"], (T1,))) == 0


def test_the_grades_of_a_study_are_those_of_its_row(spine):
    samples = Samples.of_studies(spine, ["s06", "s03", "s01"], (T2, AXIAL))
    grades = dict(zip(spine.labels["study_id"], severities_of(spine.labels).tolist(), strict=True))
    assert samples.severity.tolist() == [grades["s06"], [-1] * 25, grades["s01"]]
    assert tuple(samples.shape[0, 1]) == (10, 40, 44)


# Discs.


def point(study_id, series_id, level, dhw, condition="spinal_canal_stenosis", xy=(99.0, 10.0)):
    place = dict(zip("dhw", dhw, strict=True)) | dict.fromkeys(("x_mm", "y_mm", "z_mm"), 0.0)
    names = {"study_id": study_id, "series_id": series_id, "condition": condition}
    return names | place | {"level": level, "instance_number": 1, "x": xy[0], "y": xy[1]}


LEFT, RIGHT = "left_subarticular_stenosis", "right_subarticular_stenosis"
NOWHERE = (None, None, None)


@pytest.fixture(scope="module")
def discs(tmp_path_factory, write_cache):
    """A cache of two studies with points: pairs, single ones, and some outside of the volume."""
    points = [
        point("1", "ax", "l5_s1", (4.0, 10.0, 20.0), LEFT),
        point("1", "ax", "l5_s1", (6.0, 14.0, 29.0), RIGHT),
        point("1", "ax", "l1_l2", (0.0, 3.0, 4.0), LEFT),
        point("1", "ax", "l1_l2", NOWHERE, RIGHT),
        point("1", "ax", "l2_l3", NOWHERE, LEFT),
        # What stands for a point that was not found.
        point("1", "ax", "l5_s1", (0.0, 0.0, 0.0), RIGHT, xy=(4.0, 9.9)),
        point("1", "ax", "l1_l2", (0.0, 9.0, 0.0), RIGHT, xy=(9.9, 50.0)),
        point("1", "sag", "l1_l2", (0.0, 0.0, 9.0), xy=(50.0, 9.9)),
        point("1", "sag", "l3_l4", (2.0, 8.5, 7.25)),
        # The same series id in another study, and a series that is not in the cache.
        point("2", "ax", "l5_s1", (1.0, 2.0, 3.0), LEFT),
        point("2", "gone", "l4_l5", (1.0, 2.0, 3.0), LEFT),
    ]
    pixels = np.zeros((8, 20, 30), np.uint8)
    volumes = [
        ("1", "ax", AXIAL, pixels, np.eye(4)),
        ("1", "sag", T2, pixels, np.eye(4)),
        ("2", "ax", AXIAL, pixels, np.eye(4)),
    ]
    grades = np.random.default_rng(0).integers(0, 3, (2, 25))
    folder = tmp_path_factory.mktemp("discs") / "cache"
    labels = {"1": grades[0], "2": grades[1]}
    return Cache(write_cache(folder, volumes, labels, points=points))


def test_each_disc_with_points_is_a_sample_at_their_mean(discs):
    samples = Samples.of_discs(discs, range(3))
    got = [
        (study_id, int(row), LEVELS[level], centre.tolist())
        for study_id, (row,), level, (centre,) in zip(
            samples.study_id, samples.row, samples.level, samples.centre_dhw, strict=True
        )
    ]
    assert got == [
        ("1", 0, "l1_l2", [0, 3, 4]),
        ("1", 0, "l5_s1", [5, 12, 24.5]),
        ("1", 1, "l3_l4", [2, 8.5, 7.25]),
        ("2", 2, "l5_s1", [1, 2, 3]),
    ]


def test_only_the_named_series_have_discs(discs):
    samples = Samples.of_discs(discs, [1])
    assert samples.row.tolist() == [[1]]
    assert SERIES_TYPES[samples.series_type[0, 0]] == T2
    assert len(Samples.of_discs(discs, [])) == 0


def test_a_disc_knows_the_five_cells_of_its_level_and_no_other(discs):
    samples = Samples.of_discs(discs, range(3))
    whole = Samples.of_series(discs, samples.row[:, 0].tolist())
    for level, severity, of_series in zip(
        samples.level, samples.severity, whole.severity, strict=True
    ):
        known = [cell for cell, grade in zip(CELLS, severity, strict=True) if grade != -1]
        assert known == [cell for cell in CELLS if cell.endswith(LEVELS[level])]
        assert len(known) == 5
        assert severity[severity != -1].tolist() == of_series[severity != -1].tolist()


def test_an_unknown_cell_of_a_disc_stays_unknown(tmp_path, write_cache):
    grades = np.full(25, -1)
    grades[[3, 4]] = 2
    volumes = [("1", "a", T2, np.zeros((4, 9, 9), np.uint8), np.eye(4))]
    points = [point("1", "a", "l4_l5", (1.0, 2.0, 3.0))]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {"1": grades}, points=points))
    (severity,) = Samples.of_discs(cache, [0]).severity
    assert severity.tolist() == [-1, -1, -1, 2] + [-1] * 21


def test_a_disc_lies_in_the_stack_with_most_of_its_points(tmp_path, write_cache):
    stacks = tuple((length, np.eye(4)) for length in (3, 4, 2))
    volumes = [("1", "ax", AXIAL, np.zeros((9, 20, 30), np.uint8), stacks)]
    points = [
        # Of the left and the right in one stack, in two, and at the edges of stack and volume.
        point("1", "ax", "l1_l2", (3.0, 4.0, 5.0), LEFT),
        point("1", "ax", "l1_l2", (4.0, 6.0, 9.0), RIGHT),
        point("1", "ax", "l2_l3", (0.0, 4.0, 5.0), LEFT),
        point("1", "ax", "l2_l3", (8.0, 6.0, 9.0), RIGHT),
        point("1", "ax", "l3_l4", (1.0, 4.0, 5.0), LEFT),
        point("1", "ax", "l3_l4", (5.0, 6.0, 9.0), RIGHT),
        point("1", "ax", "l3_l4", (6.0, 8.0, 1.0)),
        point("1", "ax", "l4_l5", (-0.5, 1.0, 2.0)),
        point("1", "ax", "l5_s1", (8.5, 1.0, 2.0)),
    ]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {}, points=points))
    samples = Samples.of_discs(cache, [0])
    assert samples.level.tolist() == [0, 1, 2, 3, 4]
    assert samples.stack[:, 0].tolist() == [[3, 7], [0, 3], [3, 7], [0, 3], [7, 9]]
    assert samples.centre_dhw[:, 0].tolist() == [
        [3.5, 5, 7],
        [0, 5, 7],
        [5.5, 6, 5],
        [-0.5, 1, 2],
        [8.5, 1, 2],
    ]
    assert Samples.of_series(cache, [0]).stack.tolist() == [[[0, 9]]]


def test_places_are_samples_as_annotated_discs_are(tmp_path, write_cache):
    stacks = tuple((length, np.eye(4)) for length in (3, 4, 2))
    volumes = [
        ("1", "ax", AXIAL, np.zeros((9, 20, 30), np.uint8), stacks),
        ("2", "sag", T2, np.zeros((8, 20, 30), np.uint8), np.eye(4)),
    ]
    slices = [[0, 2.4, 2.5, 6.4, 8.5], [-0.5, 7.5, 3, 3, 3]]
    places = np.stack([np.array([[d, 4 + level, 5] for level, d in enumerate(s)]) for s in slices])
    points = [
        point(study, name, LEVELS[level], place)
        for (study, name), of_one in zip((("1", "ax"), ("2", "sag")), places, strict=True)
        for level, place in enumerate(of_one)
    ]
    labels = {"1": np.arange(25) % 3, "2": np.full(25, -1)}
    cache = Cache(write_cache(tmp_path / "cache", volumes, labels, points=points))
    annotated = Samples.of_discs(cache, [0, 1])
    found = Samples.of_places(cache, [0, 1], places)
    assert found.stack[:, 0].tolist() == [[0, 3], [0, 3], [3, 7], [3, 7], [7, 9], *[[0, 8]] * 5]
    assert found.study_id == annotated.study_id == ("1",) * 5 + ("2",) * 5
    for name in found.__dataclass_fields__:
        if name != "study_id":
            assert np.array_equal(getattr(found, name), getattr(annotated, name)), name
    backwards = Samples.of_places(cache, [1, 0, 1], places[[1, 0, 1]])
    assert backwards.row[:, 0].tolist() == [1] * 5 + [0] * 5 + [1] * 5
    assert backwards.stack[5:10].tolist() == found.stack[:5].tolist()
    assert len(Samples.of_places(cache, [], np.empty((0, 5, 3)))) == 0


@pytest.mark.parametrize(
    ("series_type", "whole"),
    [(T1, True), (T2, True), (SeriesType.OTHER, True), (AXIAL, False)],
)
def test_a_disc_of_a_sagittal_series_has_its_slices_on_both_sides_of_a_gap(
    tmp_path, write_cache, series_type, whole
):
    """Slices are missing; the right foramen is in the first stack, the left one behind."""
    right = tilted(SAGITTAL, 0, 4)
    left = right.copy()
    left[0, 3] = 40.0
    stacks = ((8, right), (9, left))
    volumes = [("1", "sag", series_type, np.zeros((17, 20, 30), np.uint8), stacks)]
    points = [
        point("1", "sag", "l4_l5", (3.0, 4.0, 5.0), "right_neural_foraminal_narrowing"),
        point("1", "sag", "l4_l5", (13.0, 6.0, 9.0), "left_neural_foraminal_narrowing"),
    ]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {}, points=points))
    discs = Samples.of_discs(cache, [0])
    places = np.tile(np.array([8.0, 5, 7]), (1, 5, 1))
    found = Samples.of_places(cache, [0], places)
    if not whole:
        assert discs.stack[0].tolist() == [[0, 8]]
        assert found.stack[3].tolist() == [[8, 17]]
        return
    assert discs.stack[0].tolist() == found.stack[3].tolist() == [[0, 17]]
    assert discs.centre_dhw[0].tolist() == found.centre_dhw[3].tolist() == [[8.0, 5, 7]]


@pytest.mark.parametrize(
    ("steps", "turned", "stack"), [(2, 0, [0, 9]), (3, 0, [0, 5]), (2, 3, [0, 5]), (-3, 0, [0, 5])]
)
def test_a_disc_of_an_axial_series_goes_on_behind_a_missing_slice(
    tmp_path, write_cache, steps, turned, stack
):
    """Behind more than one, or in a stack that is turned, lies another disc."""
    above, below = tilted(AXIAL_PLANE, 0, 4), tilted(AXIAL_PLANE, turned, 4)
    below[:3, 3] = above[:3, 0] * (4 + steps)
    stacks = ((5, above), (4, below))
    volumes = [("1", "ax", AXIAL, np.zeros((9, 20, 30), np.uint8), stacks)]
    points = [point("1", "ax", "l4_l5", (4.0, 4.0, 5.0), LEFT)]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {}, points=points))
    assert Samples.of_discs(cache, [0]).stack[0].tolist() == [stack]
    places = np.tile(np.array([4.0, 5, 7]), (1, 5, 1))
    assert Samples.of_places(cache, [0], places).stack[3].tolist() == [stack]


@pytest.mark.parametrize("d", [-0.6, 7.6, np.nan])
def test_a_place_outside_of_its_slices_is_refused(discs, d):
    places = np.zeros((2, 5, 3))
    places[1, 3, 0] = d
    with pytest.raises(InputError, match=rf"row 0, l4_l5; got slice {d}; expected 0 to 7"):
        Samples.of_places(discs, [1, 0], places)


# The patient's axes.


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
AXIAL_PLANE = ([0, 0, -1], [0, 1, 0], [1, 0, 0])
CORONAL = ([0, 1, 0], [0, 0, -1], [1, 0, 0])
TURNED = ([0, 0, -1], [1, 0, 0], [0, 1, 0])
AXES = {
    "ax": (AXIAL_PLANE, [2, 1, 0]),
    "cor": (CORONAL, [2, 0, 1]),
    "sag": (SAGITTAL, [0, 2, 1]),
    "turned": (TURNED, [1, 2, 0]),
}


@pytest.mark.parametrize("degrees", [-28, -10, 0, 10, 28])
def test_patient_axes_are_directions_whatever_the_spacing(tmp_path, write_cache, degrees):
    mm = (4.0, 0.5, 0.6)
    volumes = [
        ("1", name, SeriesType.OTHER, np.zeros((2, 4, 5), np.uint8), tilted(columns, degrees, mm))
        for name, (columns, _) in AXES.items()
    ]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {}))
    samples = Samples.of_series(cache, range(4))
    got = dict(zip(cache.series["series_id"], samples.patient_axes[:, 0].tolist(), strict=True))
    assert got == {name: axes for name, (_, axes) in AXES.items()}
    assert samples.spacing_mm[:, 0] == pytest.approx(np.tile([0.5, 0.6], (4, 1)))


@pytest.mark.parametrize("first", [0, 1])
def test_the_sides_of_several_stacks_lie_where_most_of_their_slices_have_them(
    tmp_path, write_cache, first
):
    """The small stack lies along another axis, the two others differ in the rest of the axes."""
    mm = (4.0, 0.5, 0.6)
    steep = np.eye(4)
    steep[:3, :3] = np.array(CORONAL, float).T * mm
    stacks = [(3, tilted(AXIAL_PLANE, 50, mm)), (2, steep), (2, tilted(AXIAL_PLANE, 0, mm))]
    assert [patient_axes(affine).tolist() for _, affine in stacks] == [
        [0, 1, 2],
        [2, 0, 1],
        [2, 1, 0],
    ]
    stacks = tuple(stacks[first:] + stacks[:first])
    volumes = [("1", "ax", AXIAL, np.zeros((7, 4, 5), np.uint8), stacks)]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {}))
    wanted = [2, 0, 1]
    assert Samples.of_series(cache, [0]).patient_axes.tolist() == [[wanted]]
    assert Samples.of_studies(cache, ["1"], (T2, AXIAL)).patient_axes[0].tolist() == [wanted]


@given(
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    order=st.permutations(range(3)),
    spacing=st.tuples(*[st.floats(0.2, 6)] * 3),
)
def test_patient_axes_of_upright_stacks_are_those_of_their_columns(signs, order, spacing):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for patient, axis in enumerate(order):
        affine[patient, axis] = signs[patient] * spacing[axis]
    assert patient_axes(affine).tolist() == list(order)


@given(seed=st.integers(0, 2**32 - 1))
def test_every_oblique_stack_has_each_axis_once(seed):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.2, 6, 3)
    affine[:3, 3] = rng.normal(0, 100, 3)
    axes = patient_axes(affine).tolist()
    assert sorted(axes) == [0, 1, 2]
    # A pairing that is plain, since one axis agrees better than half a right angle, is kept.
    for patient in range(3):
        if abs(turn[patient, axes[patient]]) < np.sqrt(0.5):
            others = np.abs(turn[patient, [a for a in range(3) if a != axes[patient]]])
            assert others.max() < np.cos(np.deg2rad(15)), "an axis that runs along is not taken"


# How severe a sample is.


def test_the_worst_is_over_the_known_cells_that_the_series_show(make_samples):
    weights = (0.5, 2.0, 4.0)
    samples = make_samples(60, 2, absent=0.4)
    sparse = np.random.default_rng(1).random(samples.severity.shape) < 0.8
    samples = replace(samples, severity=np.where(sparse, -1, samples.severity).astype(np.int8))
    expected = []
    for rows, types, severity in zip(
        samples.row, samples.series_type, samples.severity, strict=True
    ):
        words = [SHOWN[SERIES_TYPES[t]] for row, t in zip(rows, types, strict=True) if row >= 0]
        shown = [
            weights[grade]
            for cell, grade in zip(CELLS, severity, strict=True)
            if grade != -1 and any(word in cell for word in words)
        ]
        expected.append(max(shown, default=0.5))
    assert samples.worst(weights).tolist() == expected
    assert set(expected) == set(weights)


def test_a_sample_of_which_nothing_is_known_weighs_as_the_lightest(make_samples):
    samples = replace(make_samples(3), severity=np.full((3, 25), -1, np.int8))
    assert samples.worst((3.0, 2.0, 4.0)).tolist() == [2, 2, 2]
