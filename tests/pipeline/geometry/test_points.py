"""Points land on the series and the image that they name; one that does not is flagged and kept."""

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.geometry.points import POINT_SENTENCES, PointFlag, point_flags


def test_flagged_points_keep_their_rows(tools, tmp_path, rsna, caplog):
    """A series and an image that are not there, and a point that spacing crops away."""
    tools.write_points(
        rsna,
        [("100", "7", 3, 10.0, 12.0), ("100", "7", 3, 1.0, 1.0), ("100", "7", 99, 3.0, 4.0),
         ("300", "1", 1, 3.0, 4.0)],
    )  # fmt: skip
    config = PreprocessConfig(grid="spacing", spacing_mm=1.0, size=24)
    points = tools.cached(rsna, tmp_path / "out", config).coordinates
    assert points.select("study_id", "instance_number", "x").rows() == [
        ("100", 3, 1.0), ("100", 3, 10.0), ("100", 99, 3.0), ("300", 1, 3.0)
    ]  # fmt: skip
    flags = point_flags(points).to_list()
    assert flags == ["outside", None, "no_slice", "no_slice"]
    assert set(POINT_SENTENCES) == set(PointFlag)
    messages = [record.getMessage() for record in caplog.records if "points" in record.name]
    assert messages == [
        "2 points no_slice: The point names a series or an image that is not in the cache. "
        "(100/7/99, 300/1/1)",
        "1 points outside: The point lies outside its picture. (100/7/3)",
    ]


@pytest.mark.parametrize("grid", ["fit", "native"])
def test_point_beside_its_picture_is_flagged_though_the_canvas_is_wider(
    tools, tmp_path, rsna, grid
):
    """Pictures of 24 x 20 on a wider canvas: what lies on the padding lies on no picture."""
    wide = replace(
        tools.phantom, depth=2, rows=12, columns=60, instance_numbers=(8, 9),
        origin=(40.0, -40.0, 60.0),
        tags={"StudyInstanceUID": "100", "SeriesInstanceUID": "100.7"},
    )  # fmt: skip
    wide.write(rsna / "train_images" / "100" / "7")
    tools.write_points(
        rsna,
        [("100", "7", 3, 19.5, 23.5), ("100", "7", 3, 19.6, 5.0), ("100", "7", 3, 5.0, 23.6),
         ("100", "7", 3, -0.6, 5.0), ("100", "7", 8, 50.0, 5.0), ("100", "7", 8, 5.0, 20.0)],
    )  # fmt: skip
    config = PreprocessConfig(grid=grid, size=96)
    cache = tools.cached(rsna, tmp_path / "out", config)
    points = cache.coordinates
    flags = dict(zip(points["x"] + 100 * points["y"], point_flags(points), strict=True))
    outside = "outside"
    assert [flags[x + 100 * y] for x, y in (
        (19.5, 23.5), (19.6, 5.0), (5.0, 23.6), (-0.6, 5.0), (50.0, 5.0), (5.0, 20.0)
    )] == [None, outside, outside, outside, None, outside]  # fmt: skip
    assert points["x_mm"].null_count() == 0
    assert [grid.picture for grid in cache.attributes(0).source_grids] == [(24, 20), (12, 60)]


@pytest.mark.parametrize("numbers", [(7, 6, 5, 4, 3, 2, 1), (40, 3, 900, 17, 2, 5049, 8)])
def test_points_follow_the_number_of_their_image_and_not_its_place(tools, tmp_path, rsna, numbers):
    """A third of the data set's series are numbered the other way, others with holes."""
    phantom = replace(
        tools.phantom, instance_numbers=numbers,
        tags={"StudyInstanceUID": "100", "SeriesInstanceUID": "100.7"},
    )  # fmt: skip
    shutil.rmtree(rsna / "train_images" / "100" / "7")
    phantom.write(rsna / "train_images" / "100" / "7")
    tools.write_points(
        rsna, [("100", "7", number, 10.0 + d, 30.0) for d, number in enumerate(numbers)]
    )
    points = tools.cached(rsna, tmp_path / "out").coordinates.sort("d")
    assert points["d"].to_list() == list(range(7))
    assert points["instance_number"].to_list() == list(numbers)
    for d, row in enumerate(points.iter_rows(named=True)):
        expected = phantom.points(d, row["y"], row["x"])
        assert np.allclose((row["x_mm"], row["y_mm"], row["z_mm"]), expected, atol=1e-4)


def test_points_of_several_series_of_one_type_stay_on_theirs(tools, tmp_path, rsna):
    """Two axial series, each annotated at one place: both are cached, each has its own point."""
    axial = replace(
        tools.planes["axial"], rows=24, columns=20, row_spacing=3.0, column_spacing=4.0,
        origin=(-38.0, -33.0, 21.0), encoded=0,
        tags={"StudyInstanceUID": "100", "SeriesInstanceUID": "100.9"},
    )  # fmt: skip
    axial.write(rsna / "train_images" / "100" / "9", rle=True)
    path = rsna / "train_series_descriptions.csv"
    path.write_text(path.read_text() + "100,9,Axial T2\n")
    tools.write_points(rsna, [("100", "8", 2, 5.0, 6.0), ("100", "9", 2, 15.0, 6.0)])
    cache = tools.cached(rsna, tmp_path / "out")
    types = cache.series.filter(pl.col("study_id") == "100")["series_type"].to_list()
    assert types == ["sagittal_t2", "axial_t2", "axial_t2"]
    points = cache.coordinates
    assert points["series_id"].to_list() == ["8", "9"]
    for row, phantom in zip(
        points.iter_rows(named=True), (replace(axial, origin=(-40.0, -35.0, 20.0)), axial),
        strict=True,
    ):  # fmt: skip
        expected = phantom.points(1, row["y"], row["x"])
        assert np.allclose((row["x_mm"], row["y_mm"], row["z_mm"]), expected, atol=1e-4)
    assert points["x_mm"].is_sorted()
