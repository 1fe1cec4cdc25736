"""Slices that are nearly parallel are one stack; stacks that lie differently stay apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lumbar.pipeline.dicom.header import read_slices
from lumbar.pipeline.flags import Flag
from lumbar.pipeline.geometry.order import order_slices
from lumbar.pipeline.geometry.orient import CANONICAL_AXES, Plane, centre_of, choose_in_planes
from lumbar.pipeline.geometry.parallel_slices import SPREAD_DEGREES, group_parallel

STEP_MM = {"sagittal": 4.0, "axial": 3.5, "coronal": 5.0}
PIVOTS = ("centre", "corner", "isocentre")

planes = st.sampled_from(["sagittal", "axial", "coronal"])
orders = st.randoms(use_true_random=False)


def headers_of(phantom, first=0):
    dataset = phantom.dataset(0)
    dataset.PixelData = b"00"
    (header,) = read_slices(dataset, file=0, name="1.dcm")
    return [
        replace(
            header,
            position_lps=tuple(map(float, phantom.position(index))),
            file=first + index,
            turn=(0, 0, 0, first + index, first + index, 0),
        )
        for index in range(phantom.depth)
    ]


def turned(header, rotation, pivot):
    """Turn a slice about its centre, its corner or the isocentre."""
    about = {
        "centre": centre_of(header), "corner": np.array(header.position_lps), "isocentre": 0.0
    }[pivot]  # fmt: skip
    return replace(
        header,
        position_lps=tuple(rotation.apply(np.array(header.position_lps) - about) + about),
        row_direction=tuple(rotation.apply(header.row_direction)),
        column_direction=tuple(rotation.apply(header.column_direction)),
    )


def by_degrees(axis, degrees):
    return Rotation.from_euler(axis, degrees, degrees=True)


def shuffled(headers, random):
    """Give the slices other places among the files, and other numbers."""
    files = list(range(len(headers)))
    random.shuffle(files)
    given_out = [
        replace(h, file=file, turn=(*h.turn[:3], file, file, 0), instance_number=file)
        for h, file in zip(headers, files, strict=True)
    ]
    random.shuffle(given_out)
    return given_out


def places(ordered, plane):
    return np.array([centre_of(h) for h in ordered.headers]) @ CANONICAL_AXES[Plane(plane)][0]


def assert_one_stack(ordered, plane, depth):
    assert ordered.plane == plane
    assert set(ordered.groups) == {0}
    assert len(ordered.headers) == depth
    assert (np.diff(places(ordered, plane)) > 0).all()
    assert len(set(ordered.in_planes)) == 1
    if Flag.UNEVEN_TILT in ordered.flags:
        assert len({(h.row_direction, h.column_direction) for h in ordered.straight}) == 1


@given(
    planes,
    st.sampled_from("xyz"),
    st.sampled_from(PIVOTS),
    st.floats(0.11, 0.6),
    st.integers(2, 3),
    orders,
)
def test_passes_that_are_turned_a_little_are_one_stack(
    tools, plane, axis, pivot, degrees, passes, random
):
    phantom = replace(tools.planes[plane], depth=13)
    headers = [
        turned(header, by_degrees(axis, degrees * (index % passes) / (passes - 1)), pivot)
        for index, header in enumerate(headers_of(phantom))
    ]
    ordered = order_slices(shuffled(headers, random), None)
    assert_one_stack(ordered, plane, 13)
    straight = np.array([centre_of(h) for h in ordered.straight])
    steps_mm = np.linalg.norm(np.diff(straight, axis=0), axis=1)
    assert steps_mm == pytest.approx([STEP_MM[plane]] * 12, abs=0.12)


@given(planes, st.lists(st.tuples(*[st.floats(-0.2, 0.2)] * 3), min_size=5, max_size=24), orders)
def test_slices_with_jitter_are_one_stack(tools, plane, jitter, random):
    phantom = replace(tools.planes[plane], depth=len(jitter))
    headers = [
        turned(header, Rotation.from_euler("xyz", angles, degrees=True), "centre")
        for header, angles in zip(headers_of(phantom), jitter, strict=True)
    ]
    assert_one_stack(order_slices(shuffled(headers, random), None), plane, len(jitter))


@given(planes, st.lists(st.floats(0, 3), min_size=2, max_size=12), orders)
def test_groups_do_not_depend_on_the_order_of_the_files(tools, plane, tilts, random):
    headers = [
        turned(header, by_degrees("y", degrees), "corner")
        for header, degrees in zip(
            headers_of(replace(tools.planes[plane], depth=len(tilts))), tilts, strict=True
        )
    ]
    one, other = (order_slices(h, None) for h in (headers, shuffled(headers, random)))
    for name in ("plane", "groups", "in_planes", "slack_mm", "notes"):
        assert getattr(one, name) == getattr(other, name)
    for mine, theirs in zip(one.straight, other.straight, strict=True):
        assert mine.position_lps == theirs.position_lps
        assert mine.row_direction == theirs.row_direction
    assert all(group.spread_degrees <= 2 * SPREAD_DEGREES for group in group_parallel(headers))


@given(st.integers(2, 5), st.floats(0.5, 6), st.floats(10, 40), orders)
def test_stacks_of_discs_stay_apart(tools, n_stacks, degrees, apart_mm, random):
    axial = replace(tools.planes["axial"], depth=4)
    headers = []
    for number in range(n_stacks):
        lower = replace(axial, origin=(-40.0, -35.0, 90.0 - number * (10.5 + apart_mm)))
        rotation = by_degrees("x", degrees * number)
        headers += [turned(h, rotation, "centre") for h in headers_of(lower, 4 * number)]
    ordered = order_slices(shuffled(headers, random), Plane.AXIAL)
    assert ordered.groups == tuple(n for n in range(n_stacks) for _ in range(4))
    assert ordered.flags == (Flag.SEVERAL_ORIENTATIONS,)


def test_slices_of_a_fan_are_no_stack(tools):
    """Each is turned a little from the one before, the last one by nine degrees."""
    fan = [
        turned(header, by_degrees("x", 0.09 * index), "corner")
        for index, header in enumerate(headers_of(replace(tools.planes["axial"], depth=100)))
    ]
    groups = group_parallel(fan)
    assert len(groups) > 5
    assert max(group.spread_degrees for group in groups) <= SPREAD_DEGREES + 1e-6


def test_uneven_stack_is_cached_at_its_own_step(tools, tmp_path):
    """0.24 degrees between odd and even slices, which came as 2, 4, ..., 1, 3, ... 8 mm apart."""
    phantom = replace(tools.phantom, depth=12)

    def tilt(dataset, index):
        if index % 2:
            rotation = by_degrees("y", 0.24)
            cosines = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
            dataset.ImageOrientationPatient = [f"{v:.8g}" for v in rotation.apply(cosines).ravel()]

    phantom.write(tmp_path / "src", edit=tilt)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    attributes = cache.attributes(0)
    assert attributes.instance_numbers == tuple(range(1, 13))
    assert attributes.flags == ("uneven_tilt",)
    assert attributes.flag_details["uneven_tilt"] == "up to 0.12 degrees from the mean of a stack"
    assert [(stack.start, stack.stop) for stack in attributes.stacks] == [(0, 12)]
    assert attributes.spacing_mm[0] == pytest.approx(4.0, abs=0.01)
    # Voxels lie where the affine says, up to what the tilt moves them at the edges.
    assert np.abs(tools.decoded_mm(cache, 0) - tools.expected_mm(cache, 0)[..., 0]).max() < 0.25


@given(st.booleans(), orders)
def test_sagittal_stacks_lie_from_right_to_left_whatever_their_height(tools, higher, random):
    right = replace(tools.phantom, depth=5, origin=(-45.0, -40.0, 60.0))
    left = replace(right, origin=(25.0, -40.0, 95.0 if higher else 25.0))
    headers = headers_of(right)
    headers += [turned(h, by_degrees("z", 5), "centre") for h in headers_of(left, 5)]
    ordered = order_slices(shuffled(headers, random), None)
    assert ordered.groups == (0,) * 5 + (1,) * 5
    assert (np.diff(places(ordered, "sagittal")) > 0).all()


@given(st.lists(st.floats(-0.04, 0.04), min_size=6, max_size=12), orders)
def test_a_stack_half_way_between_two_planes_lies_in_one(tools, jitter, random):
    headers = [
        turned(turned(header, by_degrees("x", 45), "isocentre"), by_degrees("x", angle), "centre")
        for header, angle in zip(
            headers_of(replace(tools.planes["axial"], depth=len(jitter))), jitter, strict=True
        )
    ]
    ordered = order_slices(shuffled(headers, random), None)
    assert (len(ordered.headers), ordered.left_out) == (len(jitter), ())
    assert set(ordered.groups) == {0}


@given(st.lists(st.floats(-0.04, 0.04), min_size=6, max_size=12), st.floats(-2, 2), orders)
def test_pictures_turned_half_way_are_all_laid_the_same_way(tools, jitter, lean, random):
    """By 45 degrees in their own plane: rows are as near to one axis as to the other."""
    headers = [
        turned(
            turned(header, by_degrees("x", 45 + lean), "centre"), by_degrees("x", angle), "centre"
        )
        for header, angle in zip(
            headers_of(replace(tools.phantom, depth=len(jitter))), jitter, strict=True
        )
    ]
    ordered = order_slices(shuffled(headers, random), None)
    assert ordered.plane == "sagittal"
    assert len(set(ordered.in_planes)) == 1


def test_a_stack_that_is_laid_either_way_follows_the_rest(tools):
    upright = headers_of(tools.phantom)[0]
    for degrees in (30, -30):
        clear = turned(upright, by_degrees("x", degrees), "centre")
        unclear = [
            turned(upright, by_degrees("x", np.sign(degrees) * d), "centre") for d in (44, 46)
        ]
        found = choose_in_planes([clear, *unclear], [7, 3, 3], Plane.SAGITTAL)
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("wanted", list(Plane))
def test_of_planes_with_equally_many_slices_the_csvs_is_taken(tools, wanted):
    headers = [
        header
        for number, plane in enumerate(("sagittal", "axial", "coronal"))
        for header in headers_of(tools.planes[plane], 7 * number)
    ]
    ordered = order_slices(headers, wanted)
    assert ordered.plane == wanted
    assert ordered.flags == (Flag.OTHER_PLANES,)
    assert order_slices(headers, None).plane == "sagittal"
