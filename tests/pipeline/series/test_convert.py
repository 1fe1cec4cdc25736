"""The phantom through the whole series pipeline: what a voxel encodes is where the affine says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lumbar.pipeline.config import PreprocessConfig

ACCURACY_MM = 0.03
"""Half a step of the phantom, plus the header's decimal places."""

VALUE_SHIFT = 20000

CANONICAL = {
    "sagittal": [(1, 0, 0), (0, 0, -1), (0, 1, 0)],
    "axial": [(0, 0, -1), (0, 1, 0), (1, 0, 0)],
    "coronal": [(0, 1, 0), (0, 0, -1), (1, 0, 0)],
}


def encode_all(tools, tmp_path, phantom, config=None, edit=None):
    """Yield (decoded mm, expected mm, cache) for each patient axis that voxels can encode."""
    for axis in range(3):
        src = tmp_path / f"src{axis}"
        replace(phantom, encoded=axis).write(src, edit=edit)
        cache = tools.cached(src, tmp_path / f"out{axis}", config)
        yield axis, tools.decoded_mm(cache, 0), tools.expected_mm(cache, 0)[..., axis], cache


@pytest.mark.parametrize("plane", CANONICAL)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_voxels_lie_where_the_affine_says(tools, tmp_path, plane, reverse):
    phantom = tools.planes[plane]
    numbers = tuple(range(1, phantom.depth + 1))[:: -1 if reverse else 1]
    phantom = replace(phantom, instance_numbers=numbers)
    for _, decoded, expected, cache in encode_all(tools, tmp_path, phantom):
        assert np.abs(decoded - expected).max() < ACCURACY_MM
        directions = cache.attributes(0).affine[:3, :3].T
        unit = directions / np.linalg.norm(directions, axis=1)[:, None]
        assert np.allclose(unit, CANONICAL[plane], atol=1e-6)


@pytest.mark.parametrize("plane", CANONICAL)
@pytest.mark.parametrize(
    ("row_sign", "column_sign", "exchange"),
    [(1, 1, True), (-1, 1, False), (1, -1, False), (-1, -1, True)],
)
def test_any_orientation_of_the_picture_becomes_canonical(
    tools, tmp_path, plane, row_sign, column_sign, exchange
):
    phantom = tools.planes[plane]
    row = tuple(row_sign * v for v in phantom.row_direction)
    column = tuple(column_sign * v for v in phantom.column_direction)
    if exchange:
        row, column = column, row
    phantom = replace(phantom, row_direction=row, column_direction=column)
    for _, decoded, expected, cache in encode_all(tools, tmp_path, phantom):
        assert np.abs(decoded - expected).max() < ACCURACY_MM
        directions = cache.attributes(0).affine[:3, :3].T
        assert np.allclose(
            directions / np.linalg.norm(directions, axis=1)[:, None], CANONICAL[plane], atol=1e-6
        )


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_left_has_the_larger_x_whatever_the_file_order(tools, tmp_path, reverse):
    numbers = tuple(range(1, 8))[:: -1 if reverse else 1]
    replace(tools.phantom, instance_numbers=numbers).write(tmp_path / "src")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    x_mm = tools.decoded_mm(cache, 0).mean(axis=(1, 2))
    assert (np.diff(x_mm) > 3).all()
    assert x_mm[0] == pytest.approx(-12, abs=ACCURACY_MM)
    assert cache.attributes(0).instance_numbers == numbers


LYING = {
    "numbers": {"instance_numbers": (40, 3, 900, 17, 1, 5049, 8)},
    "thickness": {"tags": {"SliceThickness": "0.1", "SpacingBetweenSlices": "33"}},
}


@pytest.mark.parametrize("lie", [*LYING, "location", "same-number", "names"])
def test_only_positions_say_where_slices_lie(tools, tmp_path, lie):
    """Whatever else a header or a name says of the order, the volume and its places are the same.

    Slices are also written in an order that is not the patient's.
    """
    phantom = replace(tools.phantom, **LYING.get(lie, {}))

    def edit(dataset, index):
        if lie == "location":
            dataset.SliceLocation = f"{(-7, 12, 0, 99, -3, 5, 1)[index]}"
        if lie == "same-number":
            dataset.InstanceNumber = 5

    tools.phantom.write(tmp_path / "true")
    phantom.write(tmp_path / "src", edit=edit)
    if lie == "names":
        names = ("z", "10", "9", "a.dcm.7", "1", "IM000002", "0")
        for number, name in enumerate(names, start=1):
            (tmp_path / "src" / f"{number}.dcm").rename(tmp_path / "src" / f"{name}.dcm")
    true = tools.cached(tmp_path / "true", tmp_path / "out-true")
    found = tools.cached(tmp_path / "src", tmp_path / "out")
    assert np.array_equal(found.volume(0), true.volume(0))
    assert np.array_equal(found.attributes(0).affine, true.attributes(0).affine)
    assert found.attributes(0).spacing_mm == true.attributes(0).spacing_mm == (4, 1.5, 2)
    assert found.attributes(0).flags == ()
    uids = [tools.phantom.dataset(index).SOPInstanceUID for index in range(7)]
    assert (found.attributes(0).sop_instance_uids == tuple(uids)) == (lie != "numbers")


@settings(max_examples=12)
@given(
    angles=st.tuples(*[st.floats(-25, 25)] * 3),
    plane=st.sampled_from(sorted(CANONICAL)),
    numbers=st.permutations(range(1, 6)),
)
def test_oblique_stacks_stay_true(tools, tmp_path_factory, angles, plane, numbers):
    tmp_path = tmp_path_factory.mktemp("oblique")
    turned = Rotation.from_euler("xyz", angles, degrees=True)
    phantom = replace(tools.planes[plane], depth=5, instance_numbers=tuple(numbers))
    phantom = replace(
        phantom,
        **{
            name: tuple(turned.apply(getattr(phantom, name)))
            for name in ("row_direction", "column_direction", "step", "origin")
        },
    )
    for _, decoded, expected, cache in encode_all(tools, tmp_path, phantom):
        assert np.abs(decoded - expected).max() < ACCURACY_MM
        affine = cache.attributes(0).affine[:3, :3]
        assert (np.argmax(np.abs(affine), axis=0) == np.argmax(np.abs(CANONICAL[plane]), 1)).all()
        assert [affine[i, j] > 0 for j, i in enumerate(np.argmax(np.abs(affine), axis=0))] == [
            sum(direction) > 0 for direction in CANONICAL[plane]
        ]


@pytest.mark.parametrize(
    "grid",
    [
        {"grid": "fit", "size": 32},
        {"grid": "fit", "size": 96},
        {"grid": "spacing", "spacing_mm": 3.0, "size": 24},
        {"grid": "spacing", "spacing_mm": 3.0, "size": 64},
        {"grid": "spacing", "spacing_mm": 1.0, "size": 32},
    ],
    ids=str,
)
def test_resampled_voxels_lie_where_the_affine_says(tools, tmp_path, grid):
    config = PreprocessConfig(dtype="int16", percentiles=(0, 100), **grid)
    # Voxels that shrink are averages: right to a part of an original pixel, 2 mm here.
    accuracy_mm = 0.3
    for _, decoded, expected, cache in encode_all(tools, tmp_path, tools.phantom, config):
        assert cache.volume(0).shape == (7, config.size, config.size)
        inside = covered(cache, tools.phantom)
        assert inside.any()
        assert np.abs(decoded - expected)[:, inside].max() < accuracy_mm
        spacing = cache.attributes(0).spacing_mm
        assert spacing[1] == pytest.approx(spacing[2], rel=0.03)


def covered(cache, phantom):
    """Return which pixels of the canvas lie a pixel inside the original picture."""
    attributes = cache.attributes(0)
    matrix = np.vstack([attributes.source_grids[0].matrix, [0, 0, 1]])
    h, w = np.mgrid[: cache.volume(0).shape[1], : cache.volume(0).shape[2]]
    x, y, _ = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), np.stack([h, w, np.ones_like(h)]))
    return (x > 1) & (x < phantom.columns - 2) & (y > 1) & (y < phantom.rows - 2)


def test_canvas_around_the_picture_is_stored_as_zero(tools, tmp_path):
    phantom = replace(tools.phantom, columns=20, encoded=1)
    phantom.write(tmp_path / "src")
    config = PreprocessConfig(size=48, percentiles=(0, 100))
    volume = tools.cached(tmp_path / "src", tmp_path / "out", config).volume(0)
    # 72 mm high and 40 mm wide: 27 of 48 columns, 10 of padding to the left.
    assert volume.shape == (7, 48, 48)
    assert not volume[:, :, :10].any()
    assert not volume[:, :, 37:].any()
    assert volume[:, :, 20:37].all()


def test_source_grid_maps_original_pixels_to_voxels(tools, tmp_path):
    phantom = replace(tools.planes["axial"], row_direction=(-1.0, 0.0, 0.0), origin=(38.0, -35, 20))
    phantom.write(tmp_path / "src")
    for number, config in enumerate([None, PreprocessConfig(size=64), PreprocessConfig(size=20)]):
        attributes = tools.cached(tmp_path / "src", tmp_path / f"out{number}", config).attributes(0)
        for x, y in [(0, 0), (39, 0), (12.25, 47)]:
            h, w = attributes.source_grids[0].matrix @ (x, y, 1)
            place = attributes.stacks[0].affine @ (2, h, w, 1)
            assert np.allclose(place[:3], phantom.points(2, y, x), atol=1e-4)


def test_several_stacks_are_ordered_from_superior_to_inferior(tools, tmp_path):
    axial = replace(tools.planes["axial"], depth=4, encoded=2)
    expected_z = []
    for number, (z, degrees) in enumerate([(-60, 28), (30, -5), (-10, 10)]):
        turned = Rotation.from_euler("x", degrees, degrees=True)
        stack = replace(
            axial,
            column_direction=tuple(turned.apply((0, 1, 0))),
            step=tuple(turned.apply((0, 0, -3.5))),
            origin=(-40.0, -35.0, float(z)),
            instance_numbers=tuple(range(1 + 4 * number, 5 + 4 * number)),
        )
        stack.write(tmp_path / "src")
        expected_z.append(np.mean([stack.points(i, 23.5, 19.5)[2] for i in range(4)]))
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    attributes = cache.attributes(0)
    assert [(stack.start, stack.stop) for stack in attributes.stacks] == [(0, 4), (4, 8), (8, 12)]
    assert attributes.instance_numbers == (5, 6, 7, 8, 9, 10, 11, 12, 1, 2, 3, 4)
    assert "several_orientations" in attributes.flags
    assert np.abs(tools.decoded_mm(cache, 0) - tools.expected_mm(cache, 0)[..., 2]).max() < 0.03
    centres = [tools.decoded_mm(cache, 0)[s.start : s.stop].mean() for s in attributes.stacks]
    assert np.allclose(centres, sorted(expected_z, reverse=True), atol=0.1)


def test_strongly_tilted_stack_stays_with_its_axial_series(tools, tmp_path):
    turned = Rotation.from_euler("x", 50, degrees=True)
    flat = replace(tools.planes["axial"], depth=6)
    tilted = replace(
        flat,
        depth=3,
        column_direction=tuple(turned.apply((0, 1, 0))),
        step=tuple(turned.apply((0, 0, -3.5))),
        origin=(-40.0, -35.0, -50.0),
        instance_numbers=(7, 8, 9),
    )
    flat.write(tmp_path / "src")
    tilted.write(tmp_path / "src")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.volume(0).shape[0] == 9
    assert cache.rejected.is_empty()


def test_mixed_slice_sizes_share_a_canvas_in_millimetres(tools, tmp_path):
    replace(tools.phantom, depth=3, encoded=1).write(tmp_path / "src")
    other = replace(
        tools.phantom,
        depth=3,
        rows=72,
        columns=80,
        row_spacing=1.0,
        column_spacing=1.0,
        origin=(0.0, -40.25, 59.75),
        instance_numbers=(4, 5, 6),
        encoded=1,
    )
    other.write(tmp_path / "src")
    for number, config in enumerate(
        [
            PreprocessConfig(dtype="int16", percentiles=(0, 100), size=80),
            tools.exact,
        ]
    ):
        cache = tools.cached(tmp_path / "src", tmp_path / f"out{number}", config)
        attributes = cache.attributes(0)
        assert "mixed_sizes" in attributes.flags
        assert [(grid.start, grid.stop) for grid in attributes.source_grids] == [(0, 3), (3, 6)]
        decoded, expected = tools.decoded_mm(cache, 0), tools.expected_mm(cache, 0)[..., 1]
        height, width = decoded.shape[1:]
        middle = np.s_[:, height // 2 - 12 : height // 2 + 12, width // 2 - 12 : width // 2 + 12]
        assert np.abs(decoded - expected)[middle].max() < 0.3


@pytest.mark.parametrize("first", ["small", "large"])
def test_the_largest_field_of_view_fits_whole(tools, tmp_path, first):
    """Fields of 36 x 40 and 72 x 80 mm, whichever comes first: the larger fills the canvas."""
    small = replace(tools.phantom, depth=3, rows=24, columns=20, origin=(-12.0, -20.0, 42.0))
    large = replace(tools.phantom, depth=3, origin=(0.0, -40.0, 60.0), instance_numbers=(4, 5, 6))
    if first == "large":
        small = replace(small, origin=(12.0, -20.0, 42.0))

    def frame(dataset, _):
        """A bright border of one pixel."""
        picture = np.full((dataset.Rows, dataset.Columns), 100, np.uint16)
        picture[[0, -1]] = picture[:, [0, -1]] = 1000
        dataset.PixelData = picture.tobytes()

    small.write(tmp_path / "src", edit=frame)
    large.write(tmp_path / "src", edit=frame)
    config = PreprocessConfig(size=40, percentiles=(0, 100))
    cache = tools.cached(tmp_path / "src", tmp_path / "out", config)
    volume, attributes = np.asarray(cache.volume(0)), cache.attributes(0)
    assert attributes.spacing_mm[1:] == pytest.approx((2, 2))
    for d, number in enumerate(attributes.instance_numbers):
        rows, columns = np.nonzero(volume[d] > 100)
        extent = (np.ptp(rows) + 1, np.ptp(columns) + 1)
        assert extent == ((18, 20) if number <= 3 else (36, 40))


@pytest.mark.parametrize("missing", [2, 3, 4, 6])
def test_gap_parts_the_stack_and_is_flagged(tools, tmp_path, missing):
    tools.phantom.write(tmp_path / "src")
    (tmp_path / "src" / f"{missing}.dcm").unlink()
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    attributes = cache.attributes(0)
    assert attributes.flags == ("gap",)
    runs = [(0, missing - 1), (missing - 1, 6)]
    assert [(stack.start, stack.stop) for stack in attributes.stacks] == runs
    assert np.abs(tools.decoded_mm(cache, 0) - tools.expected_mm(cache, 0)[..., 0]).max() < 0.03
    assert attributes.spacing_mm[0] == pytest.approx(4)
    for stack in attributes.stacks:
        assert np.linalg.norm(stack.affine[:3, 0]) == pytest.approx(4)


def test_uneven_and_sheared_stacks_are_flagged_and_true(tools, tmp_path):
    def uneven(dataset, index):
        x_mm = [-12, -8.6, -4, 0.7, 4, 8, 12][index]
        dataset.ImagePositionPatient = [x_mm, -40, 60]

    def sheared(dataset, index):
        dataset.ImagePositionPatient = [-12 + 4 * index, -40 + index, 60]

    for name, edit, flag in (("a", uneven, "irregular_spacing"), ("b", sheared, "sheared")):
        tools.phantom.write(tmp_path / name, edit=edit)
        attributes = tools.cached(tmp_path / name, tmp_path / f"out-{name}").attributes(0)
        assert attributes.flags == (flag,)
        found = [
            stack.affine @ (d - stack.start, 0, 0, 1)
            for stack in attributes.stacks
            for d in range(stack.start, stack.stop)
        ]
        expected = []
        for index in range(7):
            dataset = tools.phantom.dataset(index)
            edit(dataset, index)
            expected.append([float(v) for v in dataset.ImagePositionPatient])
        assert np.allclose(np.array(found)[:, :3], expected, atol=0.1)


def test_only_slice_takes_its_spacing_from_the_thickness(tools, tmp_path):
    replace(tools.with_tags(SliceThickness="6"), depth=1, encoded=1).write(tmp_path / "a")
    replace(tools.phantom, depth=1, encoded=1).write(tmp_path / "b")
    told = tools.cached(tmp_path / "a", tmp_path / "out-a").attributes(0)
    unknown = tools.cached(tmp_path / "b", tmp_path / "out-b").attributes(0)
    assert told.spacing_mm[0] == 6
    assert "spacing_unknown" not in told.flags
    assert unknown.spacing_mm[0] == 1
    assert "spacing_unknown" in unknown.flags


@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
def test_signed_rescaled_and_inverted_pixels(tools, tmp_path, rle):
    """Three ways to store one picture give the same normalised volume."""

    def signed(dataset, index):
        values = tools.phantom.picture(index).astype(np.int32) - VALUE_SHIFT
        dataset.PixelRepresentation = 1
        dataset.PixelData = values.astype(np.int16).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "100"

    def inverted(dataset, index):
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.PixelData = (65535 - tools.phantom.picture(index)).astype(np.uint16).tobytes()

    def negative_slope(dataset, index):
        dataset.PixelData = (40000 - tools.phantom.picture(index)).astype(np.uint16).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = "-1", "40000"

    volumes = []
    for number, edit in enumerate((None, signed, inverted, negative_slope)):
        tools.phantom.write(tmp_path / f"src{number}", edit=edit, rle=rle)
        config = PreprocessConfig(dtype="int16", grid="native")
        cache = tools.cached(tmp_path / f"src{number}", tmp_path / f"out{number}", config)
        volumes.append(np.asarray(cache.volume(0), int))
        if edit is signed:
            low = 0.5 * (int(tools.phantom.picture(0).min()) - VALUE_SHIFT) + 100
            assert cache.attributes(0).window.low == pytest.approx(low, abs=2)
    for volume in volumes[1:]:
        assert np.abs(volume - volumes[0]).max() <= 1


def test_padding_is_left_out_of_the_window_and_stored_as_zero(tools, tmp_path):
    def pad(dataset, index):
        picture = tools.phantom.picture(index)
        picture[:, :8] = 60000
        dataset.PixelData = picture.tobytes()
        dataset.PixelPaddingValue = 60000

    tools.phantom.write(tmp_path / "src", edit=pad)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.attributes(0).window.high == tools.phantom.picture(6).max()
    volume = np.asarray(cache.volume(0))
    assert not volume[:, :, :8].any()
    assert volume[1:, :, 8:].all()


def test_high_bits_are_no_image(tools, tmp_path):
    def twelve_bits(dataset, index):
        picture = (tools.phantom.picture(index) >> 4) | 0x9000
        dataset.PixelData = picture.astype(np.uint16).tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11

    tools.phantom.write(tmp_path / "src", edit=twelve_bits)
    window = tools.cached(tmp_path / "src", tmp_path / "out").attributes(0).window
    assert window.low == tools.phantom.picture(0).min() >> 4
    assert window.high == tools.phantom.picture(6).max() >> 4
