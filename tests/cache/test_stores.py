"""Every store of a released format must open, for ever; see ``stores/make_*.py``."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from lumbar.cache.format import VOLUMES
from lumbar.cache.index import build_index
from lumbar.cache.labels import severities_of
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.verify import Problem, verify

STORES = Path(__file__).parent / "stores"


@pytest.fixture(params=["v1", "v1-archive"])
def cache(request):
    return Cache(STORES / request.param)


def test_the_store_is_sound_and_small(cache):
    assert [event for event in verify(cache.root) if isinstance(event, Problem)] == []
    assert sum(path.stat().st_size for path in cache.root.rglob("*") if path.is_file()) < 80_000


def test_the_first_store_names_no_profile_and_is_fast():
    plain, compressed = Cache(STORES / "v1"), Cache(STORES / "v1-archive")
    assert "profile" not in plain.description["config"]
    assert (plain.profile, compressed.profile) == ("fast", "archive")


def test_voxels(cache):
    (sagittal,), (axial,) = (
        cache.rows_of(kind) for kind in (SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2)
    )
    assert cache.volume(sagittal).dtype == np.uint8
    assert np.array_equal(cache.volume(sagittal), np.arange(192).reshape(3, 8, 8))
    assert cache.volume(axial).dtype == np.int16
    assert np.array_equal(cache.volume(axial), np.zeros((2, 4, 6)))
    assert np.array_equal(cache.slices(sagittal, [2, -1])[0], cache.volume(sagittal)[2])
    array = zarr.open_group(cache.root / VOLUMES, mode="r")["s1/s1.1"]
    assert np.array_equal(array[:], cache.volume(sagittal))


def test_attributes(cache):
    attributes = cache.attributes(0)
    assert (attributes.study_id, attributes.series_id) == ("s1", "s1.1")
    assert attributes.series_type is SeriesType.SAGITTAL_T2
    assert attributes.instance_numbers == (3, 2, 1)
    assert attributes.sop_instance_uids == ("s1.1.3", "s1.1.2", "s1.1.1")
    assert (attributes.scale, attributes.offset) == (1 / 255, 0.0)
    assert (attributes.window.low, attributes.window.high) == (10.0, 500.0)
    assert attributes.flags == ("order_reversed",)
    axial = cache.attributes(1)
    assert [(stack.start, stack.stop) for stack in axial.stacks] == [(0, 1), (1, 2)]
    assert axial.stacks[1].affine[2].tolist() == [-3.5, 0, 0, -10]
    assert axial.source_grids[1].matrix.tolist() == [[0, 0.5, -0.25], [0.5, 0, -0.25]]
    assert (axial.manufacturer, axial.flags) == ("", ())


def test_tables(cache):
    assert cache.series.equals(build_index(cache.root))
    assert cache.series["mean"].to_list() == pytest.approx([95.5 / 255, 0.25])
    assert severities_of(cache.labels)[0, :11].tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 1, -1, -1]
    point, gone = cache.coordinates.iter_rows(named=True)
    affine = cache.attributes(0).affine
    place = affine @ (point["d"], point["h"], point["w"], 1)
    assert place[:3].tolist() == [point["x_mm"], point["y_mm"], point["z_mm"]]
    assert (gone["series_id"], gone["d"], gone["z_mm"]) == ("s1.9", None, None)
    assert cache.rejected.row(0) == ("s1", "s1.9", "s1/s1.9/1.dcm", "unreadable", "cut short")
    assert cache.description["config"]["size"] == 8
