import numpy as np
import polars as pl
import pytest

from lumbar.cache.errors import FormatError, InputError, MissingError
from lumbar.cache.format import CACHE_FILE
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.tables import write_cache_file
from lumbar.cache.volumes import volume_folder


def test_a_cache_gives_its_tables_and_volumes(tiny_cache):
    cache = Cache(tiny_cache)
    (row,) = cache.rows_of(SeriesType.AXIAL_T2)
    entry = cache.series.row(row, named=True)
    assert entry["series_id"] == "100.2"
    volume_dhw = cache.volume(row)
    assert volume_dhw.shape == (entry["depth"], entry["height"], entry["width"])
    normalised = volume_dhw * entry["scale"] + entry["offset"]
    assert normalised.mean() == pytest.approx(entry["mean"])
    assert cache.volume(row) is volume_dhw
    assert len(cache.attributes(row).stacks) == entry["n_stacks"] == 2
    assert (cache.labels.height, cache.coordinates.height, cache.rejected.height) == (1, 1, 0)


def test_the_point_in_voxels_and_in_millimetres_is_the_same(tiny_cache):
    cache = Cache(tiny_cache)
    point = cache.coordinates.row(0, named=True)
    row = cache.series["series_id"].index_of(point["series_id"])
    stack = cache.attributes(row).stacks[0]
    x_mm, y_mm, z_mm, _ = stack.affine @ (point["d"], point["h"], point["w"], 1)
    assert np.allclose((x_mm, y_mm, z_mm), [point["x_mm"], point["y_mm"], point["z_mm"]])


def test_a_series_type_that_is_not_there_is_named_with_those_that_are(tiny_cache):
    with pytest.raises(InputError, match=r"sagittal_t1: .*'axial_t2': 1"):
        Cache(tiny_cache).rows_of(SeriesType.SAGITTAL_T1)


def test_a_volume_that_is_gone_is_refused(tiny_cache):
    cache = Cache(tiny_cache)
    folder = volume_folder(tiny_cache, "100", "100.1")
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(InputError, match=r"gone: 100/100\.1"):
        cache.attributes(0)
    with pytest.raises(FormatError, match="no file"):
        cache.volume(0)


def test_a_cache_of_a_run_that_goes_on_is_refused(tiny_cache):
    write_cache_file(tiny_cache, config={}, counts={})
    with pytest.raises(InputError, match=r"not finished: .*run `lumbar preprocess` again"):
        Cache(tiny_cache)


def test_a_cache_that_was_not_finished_is_refused(tiny_cache):
    (tiny_cache / "series.parquet").unlink()
    with pytest.raises(MissingError, match="lacks a table"):
        assert Cache(tiny_cache).series is pl.DataFrame
    (tiny_cache / CACHE_FILE).unlink()
    with pytest.raises(InputError, match="not a cache"):
        Cache(tiny_cache)
