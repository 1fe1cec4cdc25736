"""Phantoms on which one kind of network must do better than another, and runs on them.

Findings are squares that are brighter, the worse they are. Held-out studies are scored with the
metric; `prior` is the score of the training studies' rates alone.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.run.config import resolve_config
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.events import EpochFinished
from lumbar.train.trainer.loop import train

SAGITTAL = np.array([[4.5, 0, 0, -16], [0, 0, 4, -90], [0, -4, 0, 118], [0, 0, 0, 1]])
AXIAL = np.array([[0, 0, 2.0, -47], [0, 2.0, 0, -63], [-4.0, 0, 0, 60], [0, 0, 0, 1]])
DISCS_DOWN_MM = (-64, -32, 3, 35, 64)
SLICES = 10
SMALL = (
    f"crop.slices={SLICES}",
    "crop.height=64",
    "crop.width=48",
    "crop.pixel_mm=4.0",
    "crop.pixel_mm_of={ axial_t2 = 2.0 }",
    "augment.rotation_degrees=3",
    "augment.shift_mm=3",
    "loss.conditions=all",
    "model.backbone=test_resnet",
    "model.stride=8",
    "model.hidden=16",
    "model.dropout=0",
    "optim.batch=4",
    "optim.lr=4e-3",
    "split.folds=4",
    "bfloat16=false",
)


@pytest.fixture(scope="session")
def draw_grades():
    """Return a function that draws the grades of a study: those of the spinal canal are known."""

    def draw(rng):
        grades = np.full(25, UNKNOWN, np.int8)
        grades[:5] = rng.choice(3, 5, p=[0.5, 0.25, 0.25])
        return grades

    return draw


@pytest.fixture(scope="session")
def draw_sagittal():
    """Return a function that draws a sagittal series: squares below each other, in the middle."""

    def draw(rng, grades):
        volume = rng.normal(70, 12, (SLICES - 2, 64, 48))
        for down_mm, grade in zip(DISCS_DOWN_MM, grades, strict=True):
            h, w = round(31.5 + down_mm / 4), round(23.5 + 10 / 4)
            volume[2:6, h - 2 : h + 3, w - 2 : w + 3] += 80.0 * grade
        return volume.clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def draw_axial():
    """Return a function that draws an axial series: two slices a level, a square in both."""

    def draw(rng, grades, *, half=4):
        volume = rng.normal(70, 12, (SLICES, 64, 48))
        rows, columns = slice(34 - half, 35 + half), slice(24 - half, 25 + half)
        for level, grade in enumerate(grades):
            volume[2 * level : 2 * level + 2, rows, columns] += 80.0 * grade
        return volume.clip(0, 255).astype(np.uint8)

    return draw


def canals_alone(config, split):
    """Stand in for the check of labels: the phantoms have grades of canals alone."""


@pytest.fixture(scope="module")
def train_on(plain_pipeline, tmp_path_factory):
    """Return a function that trains a network to its end.

    It gives the folder, the epochs, the best score, that of the prior, and the held-out grades.
    """

    def start(cache, series, *overrides):
        config = resolve_config(series, overrides=(*SMALL, *overrides))
        run = tmp_path_factory.mktemp("proof") / "run"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lumbar.train.reader.reader.build_pipeline", plain_pipeline)
            patch.setattr("lumbar.train.trainer.run_log.draw_curves", lambda *_: None)
            patch.setattr("lumbar.train.trainer.loop.check_labels", canals_alone)
            events = list(train(cache, config, run, device=torch.device("cpu"), threads=1))
        epochs = [event for event in events if isinstance(event, EpochFinished)]
        ended = events[-1]
        severity = np.stack(list(split_samples(cache, config).held_out_severity.values()))
        return SimpleNamespace(
            run=run, epochs=epochs, best=ended.best.score, prior=ended.prior, severity=severity
        )

    return start


@pytest.fixture(scope="session")
def spread(tmp_path_factory, write_cache, draw_grades, draw_sagittal, draw_axial):
    """A cache whose findings are seen in one of two series each, a sagittal or an axial one."""
    rng = np.random.default_rng(5)
    volumes, labels = [], {}
    for number in range(44):
        name = f"s{number:02}"
        labels[name] = draw_grades(rng)
        shown = rng.random(5) < 0.5
        grades = labels[name][:5]
        volumes += [
            (name, "t2", SeriesType.SAGITTAL_T2, draw_sagittal(rng, grades * shown), SAGITTAL),
            (name, "ax", SeriesType.AXIAL_T2, draw_axial(rng, grades * ~shown), AXIAL),
        ]
    return Cache(write_cache(tmp_path_factory.mktemp("spread") / "cache", volumes, labels))


@pytest.fixture(scope="session")
def axial(tmp_path_factory, write_cache, draw_grades, draw_axial):
    """A cache of axial series that show every finding, large enough for the mean of a slice."""
    rng = np.random.default_rng(6)
    labels = {f"s{number:02}": draw_grades(rng) for number in range(44)}
    volumes = [
        (name, "ax", SeriesType.AXIAL_T2, draw_axial(rng, grades[:5], half=9), AXIAL)
        for name, grades in labels.items()
    ]
    return Cache(write_cache(tmp_path_factory.mktemp("axial") / "cache", volumes, labels))


@pytest.fixture(scope="session")
def small_lesions(tmp_path_factory, write_cache, draw_grades):
    """A cache of sagittal series with a lesion of 4 mm behind each disc, and the discs' points.

    The column stands a little elsewhere in each study.
    """
    rng = np.random.default_rng(7)
    placed = SAGITTAL.copy()
    placed[:3, 1:3] /= 2
    volumes, labels, points = [], {}, []
    for number in range(44):
        name = f"s{number:02}"
        labels[name] = draw_grades(rng)
        volume = rng.normal(70, 12, (8, 120, 96))
        down, across = rng.integers(-5, 6, 2)
        for level, grade in enumerate(labels[name][:5]):
            h, w = round(59.5 + DISCS_DOWN_MM[level] / 2) + down, 50 + across
            volume[2:6, h - 2 : h + 3, w - 8 : w + 5] += 50
            volume[3:5, h : h + 2, w + 7 : w + 9] += 80.0 * grade
            names = {"study_id": name, "series_id": "t2", "level": LEVELS[level]}
            names |= {"condition": "spinal_canal_stenosis", "instance_number": 1}
            place = {"d": 3.5, "h": float(h), "w": float(w)} | dict.fromkeys(("x", "y"), 99.0)
            points.append(names | place | dict.fromkeys(("x_mm", "y_mm", "z_mm"), 0.0))
        pixels = volume.clip(0, 255).astype(np.uint8)
        volumes.append((name, "t2", SeriesType.SAGITTAL_T2, pixels, placed))
    folder = tmp_path_factory.mktemp("lesions") / "cache"
    return Cache(write_cache(folder, volumes, labels, points=points))
