"""Order in the patient: properties that hold whatever the files are called and numbered."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lumbar.pipeline.dicom.header import read_slices
from lumbar.pipeline.flags import Flag
from lumbar.pipeline.geometry.order import centre_of, order_slices
from lumbar.pipeline.geometry.orient import CANONICAL_AXES, Plane, choose_in_plane, orient
from lumbar.pipeline.reject import Reason

angles = st.tuples(*[st.floats(-20, 20)] * 3)
planes = st.sampled_from(["sagittal", "axial", "coronal"])


def headers_of(phantom, first=0):
    datasets = [phantom.dataset(index) for index in range(phantom.depth)]
    for dataset in datasets:
        dataset.PixelData = b"00"
    return [
        read_slices(dataset, file=first + index, name=f"{index}.dcm")[0]
        for index, dataset in enumerate(datasets)
    ]


def turn(phantom, rotation):
    names = ("row_direction", "column_direction", "step", "origin")
    return replace(
        phantom, **{name: tuple(rotation.apply(getattr(phantom, name))) for name in names}
    )


@given(planes, angles, st.randoms(use_true_random=False), st.booleans())
def test_order_is_that_of_the_patient(tools, plane, degrees, random, reverse):
    phantom = turn(tools.planes[plane], Rotation.from_euler("xyz", degrees, degrees=True))
    if reverse:
        far = tuple(phantom.position(phantom.depth - 1))
        phantom = replace(phantom, step=tuple(-v for v in phantom.step), origin=far)
    headers = headers_of(phantom)
    expected = tuple(headers[::-1] if reverse else headers)
    random.shuffle(headers)
    ordered = order_slices(headers, None)
    assert ordered.plane == plane
    assert ordered.headers == expected
    assert set(ordered.groups) == {0}
    assert ordered.flags == ordered.left_out == ()
    along = np.array([centre_of(header) for header in ordered.headers])
    assert (np.diff(along @ CANONICAL_AXES[ordered.plane][0]) > 0).all()


@given(planes, angles, st.sampled_from([(1, 1), (-1, 1), (1, -1), (-1, -1)]), st.booleans())
def test_orientation_is_a_permutation_and_reversal(tools, plane, degrees, signs, exchange):
    phantom = tools.planes[plane]
    row = tuple(signs[0] * v for v in phantom.row_direction)
    column = tuple(signs[1] * v for v in phantom.column_direction)
    if exchange:
        row, column = column, row
    phantom = turn(
        replace(phantom, row_direction=row, column_direction=column, rows=6, columns=9),
        Rotation.from_euler("xyz", degrees, degrees=True),
    )
    header = headers_of(phantom)[0]
    one = orient(header, choose_in_plane(header, Plane(plane)))
    assert sorted((one.height, one.width)) == [6, 9]
    for x, y in ((0, 0), (8, 0), (3, 5)):
        h, w = one.source_to_hw @ (x, y, 1)
        assert h == round(h)
        assert 0 <= h < one.height
        assert 0 <= w < one.width
        place = one.origin_lps + h * one.h_step_lps + w * one.w_step_lps
        assert np.allclose(place, phantom.points(0, y, x), atol=1e-4)
    _, h_axis, w_axis = CANONICAL_AXES[Plane(plane)]
    assert one.h_step_lps @ h_axis > 0
    assert one.w_step_lps @ w_axis > 0


def test_stacks_are_told_apart_by_a_small_angle(tools):
    axial = tools.planes["axial"]
    lower = replace(axial, origin=(-40, -35, -40))
    close = turn(lower, Rotation.from_euler("x", 0.05, degrees=True))
    apart = turn(lower, Rotation.from_euler("x", 0.5, degrees=True))
    one = order_slices([*headers_of(axial), *headers_of(close, 7)], None)
    two = order_slices([*headers_of(apart, 7), *headers_of(axial)], None)
    assert set(one.groups) == {0}
    assert two.groups == (0,) * 7 + (1,) * 7
    assert two.flags == (Flag.SEVERAL_ORIENTATIONS,)


def test_first_of_the_images_of_one_position_is_kept(tools):
    """In turn: time, then echo, then magnitude before phase, then the instance number."""
    phantom = replace(tools.phantom, depth=2)
    later = replace(phantom, tags={"TemporalPositionIdentifier": "2"})
    echo = replace(phantom, tags={"TemporalPositionIdentifier": "1", "EchoNumbers": "2"})
    phase = replace(
        phantom,
        tags={
            "TemporalPositionIdentifier": "1",
            "EchoNumbers": "1",
            "ImageType": ["ORIGINAL", "PRIMARY", "P"],
        },
    )
    first = replace(
        phantom,
        tags={"TemporalPositionIdentifier": "1", "EchoNumbers": "1"},
        instance_numbers=(8, 9),
    )
    kinds = [later, echo, phase, first]
    for count in range(1, 5):
        headers = [h for k, kind in enumerate(kinds[:count]) for h in headers_of(kind, 2 * k)]
        ordered = order_slices(headers[::-1], None)
        assert [header.file for header in ordered.headers] == [2 * count - 2, 2 * count - 1]
        assert [left.reason for left in ordered.left_out] == [Reason.REPEATED_POSITION] * (
            2 * count - 2
        )


def test_slices_of_another_plane_are_left_out(tools):
    headers = [
        *headers_of(tools.planes["axial"]),
        *headers_of(replace(tools.planes["coronal"], depth=3), 7),
        *headers_of(replace(tools.planes["sagittal"], depth=3), 10),
    ]
    ordered = order_slices(headers, None)
    assert (ordered.plane, len(ordered.headers)) == ("axial", 7)
    assert [left.reason for left in ordered.left_out] == [Reason.OTHER_PLANE] * 6
    assert ordered.flags == (Flag.OTHER_PLANES,)
    wanted = order_slices(headers, Plane.SAGITTAL)
    assert (wanted.plane, wanted.flags) == ("axial", (Flag.PLANE_DISAGREES, Flag.OTHER_PLANES))


def test_wanted_plane_decides_for_steep_stacks(tools):
    steep = turn(tools.planes["axial"], Rotation.from_euler("x", 50, degrees=True))
    assert order_slices(headers_of(steep), None).plane == "coronal"
    ordered = order_slices(headers_of(steep), Plane.AXIAL)
    assert (ordered.plane, ordered.flags) == ("axial", ())


@pytest.mark.parametrize(
    ("plane", "axis", "kept"),
    [
        ("axial", "x", True),
        ("axial", "y", False),
        ("sagittal", "y", False),
        ("sagittal", "z", False),
        ("coronal", "x", False),
        ("coronal", "z", False),
    ],
)
def test_a_steep_stack_is_kept_only_where_the_sides_stay_along_their_axis(tools, plane, axis, kept):
    upright = tools.planes[plane]
    for degrees, stays in ((-40, True), (40, True), (-50, kept), (50, kept), (65, False)):
        steep = turn(replace(upright, depth=3), Rotation.from_euler(axis, degrees, degrees=True))
        ordered = order_slices([*headers_of(upright), *headers_of(steep, 7)], Plane(plane))
        assert ordered.plane == plane
        assert len(ordered.headers) == (10 if stays else 7)
        assert len(ordered.left_out) == (0 if stays else 3)


def test_a_slice_oblique_to_all_planes_lies_in_the_nearest_one(tools):
    turned = Rotation.align_vectors([[0.6, 0.57, 0.56]], [[1, 0, 0]])[0]
    headers = headers_of(turn(tools.planes["sagittal"], turned))
    for wanted in (None, Plane.SAGITTAL):
        ordered = order_slices(headers, wanted)
        assert (ordered.plane, len(ordered.headers)) == ("sagittal", 7)


def test_no_slices_are_no_order():
    assert order_slices([], None).headers == ()


@pytest.mark.parametrize("plane", list(Plane))
def test_canonical_axes_are_right_angled(plane):
    axes = CANONICAL_AXES[plane]
    assert np.array_equal(np.abs(axes) @ np.abs(axes).T, np.eye(3))


@pytest.mark.parametrize(("one", "other"), [(44.8, 45.2), (44, 47), (-47, -44)])
def test_stacks_on_both_sides_of_the_border_of_two_planes_lie_in_one(tools, one, other):
    """Half of the series was left out where the second stack is nearer to another plane."""
    upright = replace(tools.planes["sagittal"], origin=(10.0, -40.0, 60.0))
    second = replace(upright, origin=(38.0, -40.0, 60.0))
    stacks = [
        turn(phantom, Rotation.from_euler("z", degrees, degrees=True))
        for phantom, degrees in ((upright, one), (second, other))
    ]
    headers = [*headers_of(stacks[0]), *headers_of(stacks[1], 7)]
    for wanted in (None, Plane.SAGITTAL):
        ordered = order_slices(headers, wanted)
        assert ordered.left_out == ()
        assert list(ordered.headers) == headers
        assert len({(o.exchange, o.reverse_h, o.reverse_w) for o in ordered.in_planes}) == 1
        assert ordered.is_revised
