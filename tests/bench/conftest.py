"""A cache of four series of smooth pictures, so that interpolation is compared and not noise."""

import numpy as np
import polars as pl
import pytest

from lumbar.cache.format import (
    COORDINATES_SCHEMA,
    COORDINATES_TABLE,
    LABELS_SCHEMA,
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
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.tables import write_cache_file, write_table
from lumbar.cache.volumes import write_volume
from lumbar.train.run.config import RunConfig

N_SERIES = 5


@pytest.fixture(scope="session")
def smooth_cache(tmp_path_factory):
    """Five sagittal series without labels, of different depths."""
    return _write(tmp_path_factory.mktemp("bench") / "cache", "fast")


@pytest.fixture(scope="session")
def smooth_archive(tmp_path_factory):
    """The same, compressed."""
    return _write(tmp_path_factory.mktemp("bench") / "archive", "archive")


def _write(root, profile):
    root.mkdir()
    for number in range(N_SERIES):
        depth = 3 + number
        d, h, w = np.meshgrid(np.arange(depth), np.arange(64), np.arange(56), indexing="ij")
        waves = np.sin(h / 9 + number) + np.cos(w / 7 + d / 2)
        volume = np.round(127.5 + 60 * waves).astype(np.uint8)
        write_volume(root, volume, _attributes(str(number), depth), profile=profile)
    write_table(root, SERIES_TABLE, build_index(root))
    write_table(root, LABELS_TABLE, pl.DataFrame(schema=LABELS_SCHEMA))
    write_table(root, COORDINATES_TABLE, pl.DataFrame(schema=COORDINATES_SCHEMA))
    write_table(root, REJECTED_TABLE, pl.DataFrame(schema=REJECTED_SCHEMA))
    write_cache_file(root, config={"profile": profile}, counts={"series": N_SERIES})
    return Cache(root)


@pytest.fixture(scope="session")
def run_config():
    """A configuration that a CPU takes quickly; batches of two."""
    return RunConfig.model_validate(
        {
            "series": "sagittal_t2",
            "bfloat16": False,
            "crop": {"slices": 4, "height": 48, "width": 40},
            "augment": {"noise": 0.0},
            "optim": {"batch": 2},
            "model": {"hidden": 8},
        }
    )


def _attributes(study_id, depth):
    affine = np.array([[4.0, 0, 0, -8], [0, 0, 0.9, -25], [0, -0.9, 0, 28], [0, 0, 0, 1]])
    return VolumeAttributes(
        study_id=study_id,
        series_id=f"{study_id}.1",
        series_type=SeriesType.SAGITTAL_T2,
        stacks=(Stack(0, depth, affine),),
        source_grids=(SourceGrid(0, depth, np.array([[0.0, 1, 0], [1, 0, 0]])),),
        spacing_mm=(4.0, 0.9, 0.9),
        scale=1 / 255,
        offset=0.0,
        window=IntensityWindow(0.0, 1000.0),
        instance_numbers=tuple(range(1, depth + 1)),
        sop_instance_uids=tuple(f"{study_id}.1.{n}" for n in range(depth)),
        source_hash="0" * 16,
        config_hash="0" * 16,
        n_files=depth,
    )
