"""A cache of series of smooth pictures, so that interpolation is compared and not noise."""

import numpy as np
import pytest

from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.run.config import RunConfig

AFFINE = np.array([[4.0, 0, 0, -8], [0, 0, 0.9, -25], [0, -0.9, 0, 28], [0, 0, 0, 1]])
N_SERIES = 5


@pytest.fixture(scope="session")
def smooth_cache(tmp_path_factory, write_cache):
    """Five sagittal series without labels, of different depths."""
    root = tmp_path_factory.mktemp("bench") / "cache"
    return Cache(write_cache(root, list(_volumes()), {}, config={"profile": "fast"}))


@pytest.fixture(scope="session")
def smooth_archive(tmp_path_factory, write_cache):
    """The same, compressed."""
    root = tmp_path_factory.mktemp("bench") / "archive"
    return Cache(write_cache(root, list(_volumes()), {}, config={"profile": "archive"}))


def _volumes():
    for number in range(N_SERIES):
        d, h, w = np.meshgrid(np.arange(3 + number), np.arange(64), np.arange(56), indexing="ij")
        waves = np.sin(h / 9 + number) + np.cos(w / 7 + d / 2)
        volume = np.round(127.5 + 60 * waves).astype(np.uint8)
        yield str(number), f"{number}.1", SeriesType.SAGITTAL_T2, volume, AFFINE


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
