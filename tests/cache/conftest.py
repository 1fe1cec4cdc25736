"""Attributes of a volume, the series that they describe, and a cache of the archive profile."""

from dataclasses import replace

import numpy as np
import pytest

from lumbar.cache.format import SERIES_TABLE, SourceGrid, Stack, VolumeAttributes, Window
from lumbar.cache.index import build_index
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.tables import config_hash, write_cache_file, write_table
from lumbar.cache.volumes import write_volume


@pytest.fixture
def make_attributes():
    """Return a function that makes valid attributes of ``depth`` slices; any may be replaced."""

    def make(depth=3, **replaced):
        affine = np.array([[4.5, 0, 0, -6], [0, 0, 0.7, -20], [0, -0.7, 0, 31], [0, 0, 0, 1]])
        matrix = np.array([[0, 1, 0], [1, 0, 0]], np.float64)
        values = {
            "study_id": "7",
            "series_id": "7.1",
            "series_type": SeriesType.SAGITTAL_T2,
            "stacks": (Stack(0, depth, affine),),
            "source_grids": (SourceGrid(0, depth, matrix),),
            "spacing_mm": (4.5, 0.7, 0.7),
            "scale": 1 / 255,
            "offset": 0.0,
            "window": Window(3.0, 811.5),
            "instance_numbers": tuple(range(depth, 0, -1)),
            "sop_instance_uids": tuple(f"7.1.{i}" for i in range(depth)),
            "source_hash": "0123456789abcdef",
            "config_hash": "fedcba9876543210",
            "manufacturer": "none",
            "transfer_syntax": "1.2.840.10008.1.2.5",
            "n_files": depth,
            "flags": ("order_reversed",),
        }
        return VolumeAttributes(**(values | replaced))

    return make


@pytest.fixture
def archive_cache(tiny_cache):
    """The tiny cache, brought to the archive profile."""
    cache = Cache(tiny_cache)
    config = cache.description["config"] | {"profile": "archive"}
    for row in range(cache.series.height):
        attributes = replace(cache.attributes(row), config_hash=config_hash(config))
        write_volume(tiny_cache, np.array(cache.volume(row)), attributes, profile="archive")
    write_table(tiny_cache, SERIES_TABLE, build_index(tiny_cache))
    write_cache_file(tiny_cache, config=config, counts=cache.description["counts"])
    return tiny_cache
