"""A cache of generated volumes: their content changes no speed, their shape does."""

from __future__ import annotations

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
from lumbar.cache.names import N_CELLS, SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.tables import config_hash, write_cache_file, write_table
from lumbar.cache.volumes import write_volume
from lumbar.pipeline.config import PreprocessConfig

SHAPE_DHW = (18, 384, 384)
SPACING_MM = (4.5, 0.75, 0.75)
CONFIG = PreprocessConfig().model_dump(mode="json")


def write_volumes(root: Path, *, studies: int, seed: int) -> Cache:
    """Write a cache of sagittal T2 series of noise, one a study, as `lumbar preprocess` stores."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    noise_dhw = rng.integers(0, 256, SHAPE_DHW, np.uint8)
    names = [f"s{number:05}" for number in range(studies)]
    for number, name in enumerate(names):
        write_volume(root, np.roll(noise_dhw, 17 * number, axis=2), _attributes(name))
    write_table(root, SERIES_TABLE, build_index(root))
    severity = rng.integers(0, 3, (studies, N_CELLS)).astype(np.int8)
    write_table(root, LABELS_TABLE, label_table(names, severity))
    write_table(root, COORDINATES_TABLE, pl.DataFrame(schema=COORDINATES_SCHEMA))
    write_table(root, REJECTED_TABLE, pl.DataFrame(schema=REJECTED_SCHEMA))
    write_cache_file(root, config=CONFIG, counts={"series": studies})
    return Cache(root)


def _attributes(name: str) -> VolumeAttributes:
    depth = SHAPE_DHW[0]
    affine = np.zeros((4, 4))
    affine[[0, 2, 1, 3], [0, 1, 2, 3]] = (SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1)
    return VolumeAttributes(
        study_id=name,
        series_id=f"{name}.1",
        series_type=SeriesType.SAGITTAL_T2,
        stacks=(Stack(0, depth, affine),),
        source_grids=(SourceGrid(0, depth, np.array([[0.0, 1, 0], [1, 0, 0]])),),
        spacing_mm=SPACING_MM,
        scale=1 / 255,
        offset=0.0,
        window=IntensityWindow(0.0, 1.0),
        instance_numbers=tuple(range(1, depth + 1)),
        sop_instance_uids=tuple(map(str, range(depth))),
        source_hash="0" * 16,
        config_hash=config_hash(CONFIG),
        n_files=depth,
    )
