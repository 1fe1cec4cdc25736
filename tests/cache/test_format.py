import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.cache.errors import FormatError, InputError
from lumbar.cache.format import (
    LABELS_SCHEMA,
    SourceGrid,
    Stack,
    VolumeAttributes,
    check_id,
    check_version,
)
from lumbar.cache.names import KNOWN_COLUMNS, TARGET_COLUMNS

EYE = np.eye(4)


def assert_same(a, b):
    assert a.to_json() == b.to_json()
    assert type(a.series_type) is type(b.series_type)
    assert all(np.array_equal(x.affine, y.affine) for x, y in zip(a.stacks, b.stacks, strict=True))


def test_attributes_survive_json(make_attributes):
    rng = np.random.default_rng(0)
    grids = (
        SourceGrid(0, 2, rng.standard_normal((2, 3))),
        SourceGrid(2, 4, rng.standard_normal((2, 3)), (48, 40)),
    )
    stacks = (Stack(0, 1, rng.standard_normal((4, 4))), Stack(1, 4, rng.standard_normal((4, 4))))
    attributes = make_attributes(4, stacks=stacks, source_grids=grids)
    assert_same(
        VolumeAttributes.from_json(json.loads(json.dumps(attributes.to_json()))), attributes
    )
    assert np.array_equal(attributes.affine, stacks[0].affine)


def test_picture_of_a_source_grid_is_optional_and_kept(make_attributes):
    """Caches of before it was written are read; their grids hold every place."""
    grids = SourceGrid(0, 1, EYE[:2, :3]), SourceGrid(1, 3, EYE[:2, :3], (48, 40))
    value = make_attributes(3, source_grids=grids).to_json()
    assert [grid.get("picture") for grid in value["source_grids"]] == [None, [48, 40]]
    old, new = VolumeAttributes.from_json(value).source_grids
    assert (old.picture, new.picture) == (None, (48, 40))
    assert old.holds(-1e6, 1e6)
    for x, y, is_on_it in (
        (-0.5, -0.5, True), (39.5, 47.5, True), (39.6, 3.0, False), (3.0, 47.6, False),
        (-0.6, 3.0, False), (3.0, -0.6, False), (45.0, 30.0, False),
    ):  # fmt: skip
        assert new.holds(x, y) == is_on_it


@pytest.mark.parametrize(
    "edges",
    [[], [(0, 2)], [(0, 4)], [(1, 3)], [(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0, 0), (0, 3)]],
)
def test_stacks_must_cover_every_slice_once(make_attributes, edges):
    stacks = tuple(Stack(start, stop, EYE) for start, stop in edges)
    with pytest.raises(FormatError, match=r"stacks of a volume: 7.1.*cover slices 0 to 3"):
        make_attributes(3, stacks=stacks)
    grids = tuple(SourceGrid(start, stop, EYE[:2, :3]) for start, stop in edges)
    with pytest.raises(FormatError, match="source_grids of a volume"):
        make_attributes(3, source_grids=grids)


def test_a_volume_has_a_slice(make_attributes):
    with pytest.raises(FormatError):
        make_attributes(0, stacks=(), source_grids=())


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.0, 1.0), (1.0, np.nan, 1.0), (np.inf, 1.0, 1.0)])
def test_spacing_must_be_finite_and_positive(make_attributes, spacing_mm):
    with pytest.raises(FormatError, match="spacing"):
        make_attributes(spacing_mm=spacing_mm)


def test_damaged_attributes_are_refused(make_attributes):
    good = make_attributes().to_json()
    VolumeAttributes.from_json(good)
    for name in sorted(good.keys() - {"format_version", "affine"}):
        with pytest.raises(FormatError, match="--overwrite"):
            VolumeAttributes.from_json({key: v for key, v in good.items() if key != name})
    spoilt = [{"spacing_mm": [1.0, 1.0]}, {"series_type": "sagittal_t9"}, {"window": {"low": 1}}]
    spoilt += [{"stacks": [{"start": 0, "stop": 3, "affine": [[1, 2]]}]}, {"n_files": "many"}]
    for change in spoilt:
        with pytest.raises(FormatError):
            VolumeAttributes.from_json(good | change)


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_another_format_is_refused_naming_both_versions(make_attributes, version):
    with pytest.raises(FormatError) as caught:
        VolumeAttributes.from_json(make_attributes().to_json() | {"format_version": version})
    assert f"got format_version {version}; expected format_version 1" in str(caught.value)
    assert "7.1" in str(caught.value)
    check_version(1, where="here")


@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_safe_ids_name_one_folder(value):
    assert check_id(value, name="study_id") == value
    assert "/" not in value
    assert value not in {".", ".."}


@pytest.mark.parametrize("value", ["", ".", "..", ".x", "a/b", "a b", "a\n", "ü", "x" * 129, "a+b"])
def test_unsafe_ids_are_refused(value, make_attributes):
    with pytest.raises(InputError, match="study_id cannot name a folder"):
        check_id(value, name="study_id")
    with pytest.raises(InputError, match="series_id"):
        make_attributes(series_id=value)


def test_the_labels_table_has_75_and_25_columns_in_their_order():
    assert LABELS_SCHEMA.names() == ["study_id", *TARGET_COLUMNS, *KNOWN_COLUMNS]
