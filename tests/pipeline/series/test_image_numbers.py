"""A point names a file of the data set: it lies on the slice of that file, or on none."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbar.cache.format import VolumeAttributes
from lumbar.cache.store import Cache
from lumbar.cache.volumes import read_attributes, write_volume
from lumbar.pipeline.series import convert as series_module
from lumbar.pipeline.series.image_numbers import number_of_name

TAGS = {"StudyInstanceUID": "100", "SeriesInstanceUID": "100.7"}


def write_points(tools, rsna, numbers, x=10.0, y=12.0):
    tools.write_points(rsna, [("100", "7", n, x, y) for n in numbers])


def rewrite(rsna, phantom, files, headers):
    """Write series 100/7 anew: slice d is ``files[d].dcm`` with InstanceNumber ``headers[d]``."""
    folder = rsna / "train_images" / "100" / "7"
    shutil.rmtree(folder, ignore_errors=True)
    named = replace(phantom, instance_numbers=tuple(files), tags=TAGS)

    def edit(dataset, index):
        dataset.InstanceNumber = headers[index]

    named.write(folder, edit=edit)
    return folder


def places(cache):
    points = cache.coordinates.filter(pl.col("series_id") == "7")
    return dict(zip(points["instance_number"], points["d"], strict=True))


def of_series(cache):
    return cache.attributes(cache.find_series("100/7"))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(1, 8)), st.lists(st.integers(0, 9), min_size=7, max_size=7))
def test_the_name_of_the_file_decides(tools, tmp_path_factory, files, headers):
    """Whatever InstanceNumber says, and however often it says the same."""
    root = tmp_path_factory.mktemp("numbers")
    rsna = small(tools, root)
    rewrite(rsna, tools.phantom, files, headers)
    write_points(tools, rsna, files)
    cache = tools.cached(rsna, root / "out")
    assert places(cache) == {number: float(d) for d, number in enumerate(files)}
    flags = set(of_series(cache).flags)
    assert ("number_disagrees" in flags) == (list(files) != headers)
    assert ("repeated_numbers" in flags) == (len(set(headers)) < 7)
    for row in cache.coordinates.iter_rows(named=True):
        d = list(files).index(row["instance_number"])
        expected = tools.phantom.points(d, row["y"], row["x"])
        assert np.allclose((row["x_mm"], row["y_mm"], row["z_mm"]), expected, atol=1e-4)


def small(tools, root):
    """A data set of one series."""
    rsna = root / "rsna"
    rewrite(rsna, tools.phantom, range(1, 8), range(1, 8))
    (rsna / "train_series_descriptions.csv").write_text(
        "study_id,series_id,series_description\n100,7,Sagittal T1\n"
    )
    return rsna


def test_flags_say_which_files_and_which_numbers(tools, tmp_path):
    rsna = small(tools, tmp_path)
    rewrite(rsna, tools.phantom, range(1, 8), (1, 2, 3, 3, 5, 6, 8))
    attributes = of_series(tools.cached(rsna, tmp_path / "out"))
    assert attributes.flags == ("number_disagrees", "repeated_numbers")
    assert attributes.flag_details == {
        "number_disagrees": "4.dcm is 3, 7.dcm is 8",
        "repeated_numbers": "3",
    }
    assert VolumeAttributes.from_json(attributes.to_json()).grids_of(4)[0].start == 3


def test_where_names_and_headers_agree_a_volume_says_no_more_than_before(tools, tmp_path):
    rsna = small(tools, tmp_path)
    attributes = of_series(tools.cached(rsna, tmp_path / "out"))
    assert attributes.flags == ()
    assert "image_grids" not in attributes.to_json()


def test_a_point_on_a_twin_lands_on_the_twin_that_is_kept(tools, tmp_path):
    """The twin's picture has pixels of half the size: its point is at the same millimetres."""
    rsna = small(tools, tmp_path)
    folder = rsna / "train_images" / "100" / "7"
    fine = replace(
        tools.phantom, depth=1, origin=(-4.0, -40.5, 60.375), instance_numbers=(40,), tags=TAGS,
        rows=96, columns=80, row_spacing=0.75, column_spacing=1.0,
    )  # fmt: skip
    fine.write(folder)
    copy = replace(tools.phantom, instance_numbers=tuple(range(51, 58)), tags=TAGS)
    copy.write(tmp_path / "copy")
    shutil.copy(tmp_path / "copy" / "54.dcm", folder / "54.dcm")
    write_points(tools, rsna, [3, 40, 54, 55], x=11.0, y=21.0)
    cache = tools.cached(rsna, tmp_path / "out")
    assert places(cache) == {3: 2.0, 40: 2.0, 54: 3.0, 55: None}
    assert cache.rejected["reason"].to_list() == ["repeated_position"] * 2
    for row in cache.coordinates.drop_nulls().iter_rows(named=True):
        one, d = {40: (fine, 0), 54: (tools.phantom, 3)}.get(
            row["instance_number"], (tools.phantom, 2)
        )
        expected = one.points(d, row["y"], row["x"])
        assert np.allclose((row["x_mm"], row["y_mm"], row["z_mm"]), expected, atol=1e-3)


def test_a_point_on_a_file_that_cannot_be_decoded_lands_on_its_twin(tools, tmp_path):
    rsna = small(tools, tmp_path)
    folder = rsna / "train_images" / "100" / "7"
    shutil.copy(folder / "4.dcm", folder / "9.dcm")
    (folder / "4.dcm").write_bytes((folder / "4.dcm").read_bytes()[:-40])
    write_points(tools, rsna, [4, 9])
    assert places(tools.cached(rsna, tmp_path / "out")) == {4: 3.0, 9: 3.0}


def test_a_number_of_two_files_places_no_point_and_is_said(tools, tmp_path, caplog):
    rsna = small(tools, tmp_path)
    folder = rsna / "train_images" / "100" / "7"
    (folder / "5.dcm").rename(folder / "004.dcm")
    write_points(tools, rsna, [3, 4, 4])
    finished = tools.run(rsna, tmp_path / "out")[-1]
    cache = Cache(tmp_path / "out")
    assert places(cache) == {3: 2.0, 4: None}
    assert of_series(cache).flag_details["repeated_numbers"] == "4"
    assert finished.points_by_flag == {"ambiguous": 2}
    assert "2 points ambiguous" in caplog.text
    assert caplog.text.count("100/7/4") == 1, "an example is named once"


def test_files_that_are_not_named_by_numbers_keep_those_of_their_headers(tools, tmp_path):
    rsna = small(tools, tmp_path)
    folder = rsna / "train_images" / "100" / "7"
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"IM-{int(path.stem) * 7 % 11:04}.dcm")
    write_points(tools, rsna, range(1, 8))
    cache = tools.cached(rsna, tmp_path / "out")
    assert places(cache) == {n: n - 1.0 for n in range(1, 8)}
    assert of_series(cache).flags == ()
    # One that is named by a number has it; the header of another that says the same gives way.
    (folder / "IM-0007.dcm").rename(folder / "2.dcm")
    write_points(tools, rsna, range(1, 8))
    again = tools.cached(rsna, tmp_path / "out")
    assert places(again) == {1: None, 2: 0.0} | {n: n - 1.0 for n in range(3, 8)}


def test_a_bare_tree_has_no_flags_of_numbers(tools, tmp_path):
    def edit(dataset, _):
        dataset.InstanceNumber = 5

    tools.phantom.write(tmp_path / "src", edit=edit)
    attributes = tools.cached(tmp_path / "src", tmp_path / "out").attributes(0)
    assert attributes.flags == ()
    assert len(attributes.grids_of(5)) == 7
    assert attributes.grids_of(4) == ()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("3.dcm", 3), ("100/7/003.DCM", 3), ("a.zip!/100/7/12.dcm", 12), ("5049", 5049),
        ("IM3.dcm", None), ("3-1.dcm", None), ("1.2.840.3", None), ("3 (1).dcm", None),
        ("1234567890.dcm", None), ("\u0663.dcm", None), ("0.dcm", 0),
    ],
)  # fmt: skip
def test_numbers_of_names(name, number):
    assert number_of_name(name) == number


def as_before(cache: Path, *key):
    """Write a volume as it was before it said what its numbers mean."""
    attributes = read_attributes(cache, *key)
    old = replace(
        attributes,
        image_grids={},
        flags=tuple(f for f in attributes.flags if "number" not in f),
        flag_details={f: t for f, t in attributes.flag_details.items() if "number" not in f},
    )
    volume = np.array(Cache(cache).volume(Cache(cache).find_series("/".join(key))))
    write_volume(cache, volume, old, profile="fast")


@pytest.mark.parametrize("differs", [False, True])
def test_a_cache_of_before_is_decoded_again_only_where_its_points_change(
    tools, tmp_path, monkeypatch, differs
):
    rsna = small(tools, tmp_path)
    if differs:
        rewrite(rsna, tools.phantom, (7, 6, 5, 4, 3, 2, 1), range(1, 8))
    write_points(tools, rsna, [2])
    out = tmp_path / "out"
    tools.run(rsna, out)
    after = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.suffix in {".parquet", ".json"}}
    as_before(out, "100", "7")
    (out / ".sources").unlink()  # a record of before asks for another look, too
    decoded = []
    genuine = series_module.build_volume
    monkeypatch.setattr(
        series_module, "build_volume", lambda *a, **k: decoded.append(1) or genuine(*a, **k)
    )
    tools.run(rsna, out)
    tools.run(rsna, out, check="contents")
    assert len(decoded) == differs
    assert {path: path.read_bytes() for path in after} == after


def test_a_file_that_cannot_be_read_keeps_its_number(tools, tmp_path):
    """Its place is not known, and another file with the number in its header is another one."""
    rsna = small(tools, tmp_path)
    folder = rsna / "train_images" / "100" / "7"
    (folder / "3.dcm").rename(folder / "copy.dcm")
    (folder / "3.dcm").write_bytes(b"no")
    write_points(tools, rsna, [3, 4])
    cache = tools.cached(rsna, tmp_path / "out")
    assert places(cache) == {3: None, 4: 3.0}
    assert of_series(cache).depth == 7


def test_a_name_goes_before_the_number_in_a_header(tools, tmp_path):
    rsna = small(tools, tmp_path)
    folder = rsna / "train_images" / "100" / "7"
    (folder / "3.dcm").rename(folder / "copy.dcm")
    (folder / "5.dcm").rename(folder / "3.dcm")
    write_points(tools, rsna, [3, 5])
    assert places(tools.cached(rsna, tmp_path / "out")) == {3: 4.0, 5: None}
