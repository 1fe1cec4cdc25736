"""Phantoms whose discs can be told apart, with points in them, and a locator trained on them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lumbar.cache.names import LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.locator.config import LocatorConfig
from lumbar.train.locator.locate import Locator
from lumbar.train.locator.train import train_locator

SERIES = 26
TRAINED_ON = 20
SHAPE_DHW = (9, 60, 48)
SAGITTAL = np.array([[4.0, 0, 0, -16], [0, 0, 4, -90], [0, -4, 0, 118], [0, 0, 0, 1]])
CONFIG = LocatorConfig(epochs=18, batch=4, lr=6e-3, slices=8, height=64, width=48, pixel_mm=4.0)
SPINAL = "spinal_canal_stenosis"


@pytest.fixture(scope="session")
def point():
    """Return a function that makes a row of the coordinate table."""

    def make(study_id, series_id, level, dhw, condition=SPINAL):
        names = {"study_id": study_id, "series_id": series_id, "condition": condition}
        place = dict(zip("dhw", map(float, dhw), strict=True))
        millimetres = dict.fromkeys(("x_mm", "y_mm", "z_mm"), 0.0)
        more = {"level": LEVELS[level], "instance_number": 1, "x": 99.0, "y": 99.0}
        return names | more | place | millimetres

    return make


def spine(rng):
    """Draw a column of discs in the middle slices, with a sacrum below; return also their places.

    The place, tilt and length of the column vary, so the place of a disc does not tell its level.
    """
    depth, _, width = SHAPE_DHW
    pixels = rng.normal(60, 8, SHAPE_DHW)
    middle = rng.uniform(3, depth - 4)
    d, h, w = np.indices(SHAPE_DHW)
    at_h = rng.uniform(8, 14) + np.arange(5) * rng.uniform(7.2, 8.6)
    at_w = width / 2 + rng.uniform(-5, 5) + np.arange(5) * rng.uniform(-1, 1)
    for place_h, place_w in zip(at_h, at_w, strict=True):
        near = ((h - place_h) / 1.5) ** 2 + ((w - place_w) / 4) ** 2 + ((d - middle) / 1.7) ** 2
        pixels += 150 * np.exp(-near / 2)
    sacrum = (h > at_h[-1] + 4) & (abs(w - at_w[-1]) < 5) & (abs(d - middle) < 2.5)
    pixels[sacrum] -= 40
    places = np.column_stack([np.full(5, middle), at_h, at_w])
    return pixels.clip(0, 255).astype(np.uint8), places


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory, write_cache, point):
    """A cache of annotated series, one a study; the points of some discs are missing."""
    rng = np.random.default_rng(3)
    volumes, points, places = [], [], []
    for number in range(SERIES):
        pixels, of_discs = spine(rng)
        name = f"s{number:02}"
        volumes.append((name, f"{name}.t2", SeriesType.SAGITTAL_T2, pixels, SAGITTAL))
        places.append(of_discs)
        points += [
            point(name, f"{name}.t2", level, place)
            for level, place in enumerate(of_discs)
            if number >= TRAINED_ON or rng.random() < 0.85
        ]
    root = write_cache(tmp_path_factory.mktemp("phantoms") / "cache", volumes, {}, points=points)
    return SimpleNamespace(cache=Cache(root), places=np.array(places))


@pytest.fixture(scope="session")
def train_small(plain_pipeline):
    """Return a function that trains a locator without compiling a pipeline: locator and losses."""

    def train(cache, rows, config=CONFIG, seed=0):
        losses = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lumbar.train.reader.reader.build_pipeline", plain_pipeline)
            device = torch.device("cpu")
            for event in train_locator(cache, rows, config, device=device, threads=1, seed=seed):
                if isinstance(event, Locator):
                    return event, losses
                losses.append(event.loss)
        return None

    return train


@pytest.fixture(scope="session")
def trained(phantoms, train_small):
    return train_small(phantoms.cache, range(TRAINED_ON))


@pytest.fixture(scope="session")
def held_out():
    return list(range(TRAINED_ON, SERIES))


@pytest.fixture(scope="session")
def small_locator():
    return CONFIG
