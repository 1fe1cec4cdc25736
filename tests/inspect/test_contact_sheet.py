import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt

from lumbar.cache.errors import FormatError
from lumbar.cache.store import Cache
from lumbar.cache.volumes import CHUNK, volume_folder
from lumbar.inspect.contact_sheet import (
    COLUMNS,
    DPI,
    MAX_SLICES,
    PANEL_INCHES,
    choose_slices,
    contact_sheet,
    direction_letter,
    points_of,
    position_text,
)


@given(st.integers(1, 192), st.data())
def test_annotated_slices_are_always_chosen(depth, data):
    annotated = data.draw(st.sets(st.integers(0, depth - 1), max_size=30))
    chosen = choose_slices(depth, annotated)
    assert chosen == sorted(set(chosen))
    assert annotated <= set(chosen) <= set(range(depth))
    assert len(chosen) <= max(MAX_SLICES, len(annotated))
    if depth <= MAX_SLICES:
        assert len(chosen) == depth


def test_slices_are_spread_evenly():
    chosen = choose_slices(192, set())
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 191, MAX_SLICES)
    assert set(np.diff(chosen)) <= {10, 11}


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("name", ["tiny_cache", "archive_cache"])
def test_a_sheet_is_a_picture_of_every_slice(name, request, tmp_path, row):
    out = tmp_path / "pictures" / "sheet.png"
    contact_sheet(Cache(request.getfixturevalue(name)), row, out)
    picture = cv2.imread(str(out))
    assert picture.shape[1] == pytest.approx(PANEL_INCHES * min(COLUMNS, 5 - row) * DPI, abs=1)
    assert picture.std() > 10
    assert [path.name for path in out.parent.iterdir()] == ["sheet.png"]
    assert plt.get_fignums() == []


def test_a_damaged_volume_leaves_no_picture(tiny_cache, tmp_path):
    (volume_folder(tiny_cache, "100", "100.1") / CHUNK).unlink()
    with pytest.raises(FormatError, match="no file"):
        contact_sheet(Cache(tiny_cache), 0, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_points_have_names_and_severities(tiny_cache):
    (point,) = points_of(Cache(tiny_cache), "100", "100.1")
    assert (point.d, point.h, point.w) == (2, 60.0, 40.0)
    assert (point.name, point.severity) == ("L4/L5 canal", "severe")
    assert points_of(Cache(tiny_cache), "100", "100.2") == []


def test_positions_and_sides_follow_the_affine(tiny_cache):
    cache = Cache(tiny_cache)
    sagittal, axial = cache.attributes(0), cache.attributes(1)
    positions = [position_text(sagittal.stack_of(d), d, (96, 80)) for d in range(5)]
    assert positions == ["x -8.0 mm R", "x -4.0 mm R", "x +0.0 mm", "x +4.0 mm L", "x +8.0 mm L"]
    # The second stack starts anew 30 mm below the first.
    positions = [position_text(axial.stack_of(d), d, (72, 64)) for d in range(4)]
    assert positions == ["z +12.0 mm S", "z +8.5 mm S", "z -18.0 mm I", "z -21.5 mm I"]
    towards_right_edge = axial.affine[:3, 2]
    assert direction_letter(-towards_right_edge) == "R"
    assert direction_letter(np.array([0.2, -0.9, 0.3])) == "A"
    assert direction_letter(np.array([0.0, 0.1, 0.9])) == "S"
