"""Attributes of a volume, and the series that they describe."""

import numpy as np
import pytest

from lumbar.cache.format import SourceGrid, Stack, VolumeAttributes, Window
from lumbar.cache.names import SeriesType


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
