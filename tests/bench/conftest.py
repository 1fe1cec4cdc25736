"""A cache of four series of smooth pictures, so that interpolation is compared and not noise."""

import numpy as np
import pytest

from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.run.config import RunConfig

N_SERIES = 5


AFFINE = np.array([[4.0, 0, 0, -8], [0, 0, 0.9, -25], [0, -0.9, 0, 28], [0, 0, 0, 1]])


@pytest.fixture(scope="session")
def smooth_cache(tmp_path_factory, write_cache):
    """Five sagittal series without labels, of different depths."""
    return Cache(write_cache(tmp_path_factory.mktemp("bench") / "cache", _volumes(), {}))


@pytest.fixture(scope="session")
def smooth_archive(tmp_path_factory, write_cache):
    """The same, compressed."""
    root, config = tmp_path_factory.mktemp("bench") / "archive", {"profile": "archive"}
    return Cache(write_cache(root, _volumes(), {}, config=config))


def _volumes():
    return [_volume(number) for number in range(N_SERIES)]


def _volume(number):
    d, h, w = np.indices((3 + number, 64, 56))
    waves = np.sin(h / 9 + number) + np.cos(w / 7 + d / 2)
    volume = np.round(127.5 + 60 * waves).astype(np.uint8)
    return str(number), f"{number}.1", SeriesType.SAGITTAL_T2, volume, AFFINE


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
