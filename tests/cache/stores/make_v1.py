"""Write the store of format version 1 beside this file: ``python tests/cache/stores/make_v1.py``.

It was made once, when the format was young, and is never made again: the point of it is that every
later version of lumbar opens it. Run it only to see how it came to be.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

from lumbar.cache.format import (
    COORDINATES_SCHEMA,
    COORDINATES_TABLE,
    LABELS_TABLE,
    REJECTED_SCHEMA,
    REJECTED_TABLE,
    SERIES_TABLE,
    IntensityWindow,
    SourceGrid,
    Stack,
    VolumeAttributes,
)
from lumbar.cache.index import build_index
from lumbar.cache.labels import label_table
from lumbar.cache.names import SeriesType
from lumbar.cache.tables import config_hash, write_cache_file, write_table
from lumbar.cache.volumes import write_volume

CONFIG = {"size": 8}
SAGITTAL = np.array([[4.0, 0, 0, -4], [0, 0, 0.5, -2], [0, -0.5, 0, 3], [0, 0, 0, 1]])
AXIAL = np.array([[0, 0, 0.5, -1], [0, 0.5, 0, -2], [-3.5, 0, 0, 10], [0, 0, 0, 1]])


def main(folder: Path) -> None:
    """Write the store into an empty or absent folder."""
    folder.mkdir(parents=True)
    write_sagittal(folder)
    write_axial(folder)
    write_table(folder, SERIES_TABLE, build_index(folder))
    severities = np.full((1, 25), -1, np.int8)
    severities[0, :10] = [0, 1, 2, 0, 0, 0, 0, 0, 1, -1]
    write_table(folder, LABELS_TABLE, label_table(["s1"], severities))
    point = {"study_id": "s1", "series_id": "s1.1", "instance_number": 2, "x": 5.0, "y": 3.0}
    point |= {"condition": "spinal_canal_stenosis", "level": "l3_l4", "d": 1.0, "h": 3.0, "w": 5.0}
    point |= {"x_mm": 0.0, "y_mm": 0.5, "z_mm": 1.5}
    gone = point | dict.fromkeys(("d", "h", "w", "x_mm", "y_mm", "z_mm")) | {"series_id": "s1.9"}
    points = pl.DataFrame([point, gone], schema=COORDINATES_SCHEMA)
    write_table(folder, COORDINATES_TABLE, points)
    row = {"study_id": "s1", "series_id": "s1.9", "path": "s1/s1.9/1.dcm", "reason": "unreadable"}
    rejected = pl.DataFrame([row | {"detail": "cut short"}], schema=REJECTED_SCHEMA)
    write_table(folder, REJECTED_TABLE, rejected)
    write_cache_file(folder, config=CONFIG, counts={"studies": 1, "series": 2})


def write_sagittal(folder: Path) -> None:
    """Three uint8 slices; voxel (d, h, w) holds 64 d + 8 h + w."""
    volume_dhw = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    matrix = np.array([[0.0, 1, 0], [1, 0, 0]])
    attributes = VolumeAttributes(
        study_id="s1",
        series_id="s1.1",
        series_type=SeriesType.SAGITTAL_T2,
        stacks=(Stack(0, 3, SAGITTAL),),
        source_grids=(SourceGrid(0, 3, matrix),),
        spacing_mm=(4.0, 0.5, 0.5),
        scale=1 / 255,
        offset=0.0,
        window=IntensityWindow(10.0, 500.0),
        instance_numbers=(3, 2, 1),
        sop_instance_uids=("s1.1.3", "s1.1.2", "s1.1.1"),
        source_hash="a" * 16,
        config_hash=config_hash(CONFIG),
        manufacturer="none",
        transfer_syntax="1.2.840.10008.1.2.5",
        n_files=3,
        flags=("order_reversed",),
    )
    write_volume(folder, volume_dhw, attributes)


def write_axial(folder: Path) -> None:
    """Two stacks of int16 slices; all zero, but a chunk file all the same."""
    lower = AXIAL.copy()
    lower[2, 3] = -10
    matrices = (np.array([[0.0, 1, 0], [1, 0, 0]]), np.array([[0.0, 0.5, -0.25], [0.5, 0, -0.25]]))
    attributes = VolumeAttributes(
        study_id="s1",
        series_id="s1.2",
        series_type=SeriesType.AXIAL_T2,
        stacks=(Stack(0, 1, AXIAL), Stack(1, 2, lower)),
        source_grids=(SourceGrid(0, 1, matrices[0]), SourceGrid(1, 2, matrices[1])),
        spacing_mm=(3.5, 0.5, 0.5),
        scale=1 / 32767,
        offset=0.25,
        window=IntensityWindow(-5.5, 1200.0),
        instance_numbers=(1, 7),
        sop_instance_uids=("s1.2.1", "s1.2.7"),
        source_hash="b" * 16,
        config_hash=config_hash(CONFIG),
        n_files=2,
    )
    write_volume(folder, np.zeros((2, 4, 6), np.int16), attributes)


if __name__ == "__main__":
    main(Path(__file__).parent / "v1" if len(sys.argv) == 1 else Path(sys.argv[1]))
