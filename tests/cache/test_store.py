import errno
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lumbar.cache.errors import FormatError, InputError, MissingError, from_system
from lumbar.cache.format import CACHE_FILE
from lumbar.cache.names import SeriesType
from lumbar.cache.store import SPARE_FILES, Cache, allow_open_files
from lumbar.cache.tables import config_hash, write_cache_file
from lumbar.cache.volumes import map_volume, volume_folder
from lumbar.inspect.summary import summarise


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


PROFILES = pytest.mark.parametrize(
    ("name", "profile"), [("tiny_cache", "fast"), ("archive_cache", "archive")]
)


@PROFILES
def test_slices_are_those_of_the_volume(name, profile, request):
    cache = Cache(request.getfixturevalue(name))
    assert cache.profile == summarise(cache).profile == profile
    rng = np.random.default_rng(2024)
    volume_dhw = rng.integers(0, 256, (5, 96, 80), np.uint8)
    assert np.array_equal(cache.volume(0), volume_dhw)
    picked_dhw = cache.slices(0, np.array([3, -1, 0, 3], np.int32))
    assert np.array_equal(picked_dhw[[0, 2, 3]], volume_dhw[[3, 0, 3]])
    assert not picked_dhw[1].any()
    picked_dhw[:] = 7  # the caller's own
    assert np.array_equal(cache.slices(0, range(5)), volume_dhw)
    assert cache.slices(0, []).shape == (0, 96, 80)


@pytest.mark.parametrize("name", ["tiny_cache", "archive_cache"])
def test_a_slice_that_is_not_there_is_refused(name, request):
    cache = Cache(request.getfixturevalue(name))
    with pytest.raises(InputError, match=r"no such slice: .*got 5; expected at most 4"):
        cache.slices(0, [1, 5])


def test_the_voxels_of_an_archive_are_those_of_a_fast_cache(tiny_cache, request):
    plain = [np.array(Cache(tiny_cache).volume(row)) for row in range(2)]
    cache = Cache(request.getfixturevalue("archive_cache"))
    assert all(np.array_equal(cache.volume(row), plain[row]) for row in range(2))


def test_both_profiles_have_one_voxel_configuration(tiny_cache, request):
    plain = Cache(tiny_cache)
    compressed = Cache(request.getfixturevalue("archive_cache"))
    assert plain.voxel_config == compressed.voxel_config == {"made_by": "tests"}
    assert compressed.description["config"]["profile"] == "archive"


def test_a_profile_of_a_later_version_is_refused(tiny_cache):
    write_cache_file(tiny_cache, config={"profile": "tape"}, counts={"series": 2})
    with pytest.raises(FormatError, match=r"profile of a cache: .*'tape'; expected fast or arc"):
        Cache(tiny_cache)


def test_the_hash_of_a_configuration_knows_the_profile_but_needs_none():
    assert config_hash({"size": 8}) == config_hash({"size": 8, "profile": "fast"})
    assert config_hash({"size": 8}) != config_hash({"size": 8, "profile": "archive"})


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


def test_where_few_files_may_be_open_the_oldest_map_goes_and_what_is_in_use_stays(
    tiny_cache, monkeypatch
):
    cache = Cache(tiny_cache)
    monkeypatch.setattr("lumbar.cache.store.allow_open_files", lambda maps: 1)
    first = cache.volume(0)
    copy = np.array(first)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    second = cache.volume(1)
    assert np.array_equal(first, copy)
    del first
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert cache.volume(1) is second
    assert np.array_equal(cache.volume(0), copy)


def test_the_soft_limit_is_raised_as_far_as_the_hard_one(monkeypatch):
    limits = {"now": (1000, 1500)}
    monkeypatch.setattr("resource.getrlimit", lambda _: limits["now"])
    monkeypatch.setattr("resource.setrlimit", lambda _, new: limits.update(now=new))
    assert allow_open_files(5000) == 1500 - SPARE_FILES
    assert limits["now"] == (1500, 1500)
    limits["now"] = (1000, 100_000)
    assert allow_open_files(5000) == 5000
    assert limits["now"] == (5000 + SPARE_FILES, 100_000)
    assert allow_open_files(10) == 10


def test_the_second_cache_of_a_process_is_told_the_same_limit(monkeypatch):
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr("resource.getrlimit", lambda _: limits["now"])
    monkeypatch.setattr("resource.setrlimit", lambda _, new: limits.update(now=new))
    assert [allow_open_files(6000) for _ in range(3)] == [4096 - SPARE_FILES] * 3
    limits["now"] = (1024, 1024)
    assert allow_open_files(6000) == 256


def test_where_no_descriptor_is_left_the_maps_give_way(tiny_cache, monkeypatch):
    cache = Cache(tiny_cache)
    copy = np.array(cache.volume(0))
    refused = iter([errno.EMFILE, errno.EMFILE])

    def refuse(*arguments, **options):
        number = next(refused, None)
        if number is not None:
            raise OSError(number, os.strerror(number), "volume")
        return map_volume(*arguments, **options)

    monkeypatch.setattr("lumbar.cache.store.map_volume", refuse)
    with pytest.raises(OSError, match="Too many open files") as caught:
        cache.volume(1)  # refused twice: the maps are gone, and it is still too many
    message = str(from_system(caught.value))
    assert "ulimit -n" in message
    assert "device" not in message
    assert cache.volume(1).shape == cache.volume(1).shape
    refused = iter([errno.ENOMEM])
    assert np.array_equal(cache.volume(0), copy)
