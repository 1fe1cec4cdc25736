"""Small caches with a finding that can be seen, configurations for them, and a reader's stand-in.

A pipeline of DALI takes seconds to compile. Tests that are not about reading use
`uncompiled_reader`, which runs the same pass without DALI; test_reader shows that both agree.
"""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from scipy.ndimage import map_coordinates

from lumbar.cache.format import (
    COORDINATES_SCHEMA,
    COORDINATES_TABLE,
    LABELS_TABLE,
    REJECTED_SCHEMA,
    REJECTED_TABLE,
    SERIES_TABLE,
    SourceGrid,
    Stack,
    VolumeAttributes,
    Window,
)
from lumbar.cache.index import build_index
from lumbar.cache.labels import label_table
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.tables import config_hash, write_cache_file, write_table
from lumbar.cache.volumes import write_volume
from lumbar.train.compiled import DRAWN_BY
from lumbar.train.config import resolve_config
from lumbar.train.samples import ABSENT, SERIES_TYPES, WHOLE_SPINE, Samples

PREPROCESS = {"size": 80, "dtype": "uint8"}
PIXEL_MM = 3.2
LEVELS_DOWN_MM = (-64, -32, 3, 35, 64)
"""Where the spine of the phantom has its discs, from the image centre."""

SMALL = (
    "crop.slices=8",
    "crop.height=64",
    "crop.width=48",
    "crop.pixel_mm=4.0",
    "model.backbone=test_resnet",
    "model.stride=8",
    "model.hidden=16",
    "optim.epochs=2",
    "optim.batch=4",
    "split.folds=3",
    "bfloat16=false",
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def write_cache():
    """Return a function that writes a finished cache of (study, series, type, volume, affine).

    A series of several stacks has a tuple of (slices, affine) for its affine.
    """

    def write(root, volumes, labels, *, scale=1 / 255, offset=0.0, config=PREPROCESS, points=()):
        root.mkdir(parents=True)
        for study_id, series_id, series_type, volume_dhw, placed in volumes:
            depth = len(volume_dhw)
            runs = placed if isinstance(placed, tuple) else ((depth, placed),)
            stops = np.cumsum([length for length, _ in runs]).tolist()
            stacks = tuple(
                Stack(stop - length, stop, affine)
                for stop, (length, affine) in zip(stops, runs, strict=True)
            )
            affine = stacks[0].affine
            attributes = VolumeAttributes(
                study_id=study_id,
                series_id=series_id,
                series_type=series_type,
                stacks=stacks,
                source_grids=(SourceGrid(0, depth, np.array([[0.0, 1, 0], [1, 0, 0]])),),
                spacing_mm=tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()),
                scale=scale,
                offset=offset,
                window=Window(0.0, 1000.0),
                instance_numbers=tuple(range(1, depth + 1)),
                sop_instance_uids=("1",) * depth,
                source_hash="0" * 16,
                config_hash=config_hash(config),
                n_files=depth,
            )
            profile = config.get("profile", "fast")
            write_volume(root, volume_dhw, attributes, profile=profile)
        write_table(root, SERIES_TABLE, build_index(root))
        severities = np.array(list(labels.values()), np.int8).reshape(-1, 25)
        write_table(root, LABELS_TABLE, label_table(list(labels), severities))
        coordinates = pl.DataFrame(list(points), schema=COORDINATES_SCHEMA)
        write_table(root, COORDINATES_TABLE, coordinates)
        write_table(root, REJECTED_TABLE, pl.DataFrame(schema=REJECTED_SCHEMA))
        write_cache_file(root, config=config, counts={"series": len(volumes)})
        return root

    return write


@pytest.fixture(scope="session")
def make_samples():
    """Return a function that makes samples of random shapes, axes, types and grades.

    ``absent`` is the chance of each series of a study to be missing; one is always there.
    """

    def make(n, slots=1, *, absent=0.0, studies=None, depths=(4, 90)):
        rng = np.random.default_rng((n, slots))
        row = np.arange(n * slots).reshape(n, slots) * 3 + 1
        missing = rng.random((n, slots)) < absent
        missing[np.arange(n), rng.integers(slots, size=n)] = False
        size = rng.integers((depths[0], 20, 20), (depths[1], 90, 90), (n, slots, 3))
        return Samples(
            row=np.where(missing, ABSENT, row),
            series_type=rng.integers(0, len(SERIES_TYPES), (n, slots)),
            study_id=tuple(f"s{i % (studies or max(n, 1))}" for i in range(n)),
            shape=size,
            spacing_mm=rng.uniform(0.3, 2, (n, slots, 2)),
            patient_axes=rng.permuted(np.tile(np.arange(3), (n, slots, 1)), axis=2),
            centre_dhw=np.full((n, slots, 3), np.nan),
            stack=size[..., :1] * [0, 1],
            level=np.full(n, WHOLE_SPINE, np.int8),
            severity=rng.integers(-1, 3, (n, 25)).astype(np.int8),
            whole_studies=slots > 1,
        )

    return make


@pytest.fixture(scope="session")
def draw_with_scipy():
    """Return a function that draws the grid of a view's slices, linearly; NaN is outside."""

    def draw(volume_dhw, view):
        rows, columns = np.indices(view.intensity.grid_hw)
        pixels = np.stack([columns, rows, np.ones_like(rows)])
        across, down = np.tensordot(view.matrix.astype(np.float64), pixels, 1)
        slices = [volume_dhw[s].astype(np.float64) for s in view.slices if s >= 0]
        return np.stack([map_coordinates(s, [down, across], order=1, cval=np.nan) for s in slices])

    return draw


def sagittal_affine(depth):
    affine = np.eye(4)
    affine[:3, :3] = [[4.5, 0, 0], [0, 0, PIXEL_MM], [0, -PIXEL_MM, 0]]
    affine[:3, 3] = (-4.5 * (depth - 1) / 2, -110, 120)
    return affine


def spine_volume(rng, severity):
    """Draw noise and, in the middle slices, a square at each disc: brighter, the worse it is."""
    depth = int(rng.integers(6, 15))
    volume = rng.normal(70, 12, (depth, 80, 72))
    middle = slice(depth // 2 - 2, depth // 2 + 2)
    for down_mm, grade in zip(LEVELS_DOWN_MM, severity[:5], strict=True):
        h, w = round(39.5 + down_mm / PIXEL_MM), round(35.5 + 10 / PIXEL_MM)
        volume[middle, h - 3 : h + 4, w - 3 : w + 4] += 80 * max(int(grade), 0)
    return volume.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def spine_root(tmp_path_factory, write_cache):
    """A cache of 38 studies on which the five canals can be learnt.

    Study s03 has no label row, s07 an empty one, s05 lacks some cells; s02 and s08 have two
    sagittal T2 series each; s01 and s06 have an axial series too, s04 has nothing else.
    """
    rng = np.random.default_rng(11)
    volumes, labels = [], {}
    for number in range(38):
        study_id = f"s{number:02}"
        severity = rng.choice(np.array([0, 1, 2], np.int8), 25, p=[0.6, 0.2, 0.2])
        if number == 7:
            severity[:] = -1
        if number == 5:
            severity[[0, 3, 11]] = -1
        if number != 3:
            labels[study_id] = severity
        for part in range(0 if number == 4 else 2 if number in {2, 8} else 1):
            volume = spine_volume(rng, severity)
            affine = sagittal_affine(len(volume))
            volumes.append((study_id, f"{part}t2", SeriesType.SAGITTAL_T2, volume, affine))
        if number in {1, 4, 6}:
            axial = np.diag([0.5, 0.5, -4.0, 1.0])[:, [2, 1, 0, 3]]
            pixels = rng.integers(0, 256, (10, 40, 44), np.uint8)
            volumes.append((study_id, "9ax", SeriesType.AXIAL_T2, pixels, axial))
    return write_cache(tmp_path_factory.mktemp("spine") / "cache", volumes, labels)


@pytest.fixture
def spine(spine_root):
    return Cache(spine_root)


@pytest.fixture(scope="session")
def small_overrides():
    return SMALL


@pytest.fixture
def small_config():
    """Return a function that makes the configuration of a run of a second."""

    def make(*overrides, series=SeriesType.SAGITTAL_T2):
        return resolve_config(series, overrides=(*SMALL, *overrides))

    return make


class PlainPipeline:
    """What DALI does with a source and the compiled function, one batch at a time."""

    def __init__(self, source, config):
        self.source = source
        self.config = config
        self.iteration = 0

    def run(self, stream):
        volumes, slices, *rest = self.source(SimpleNamespace(iteration=self.iteration))
        self.iteration += 1
        shape = (len(volumes), slices.shape[1], self.config.crop.height, self.config.crop.width)
        floats = self.config.dtype == torch.float32
        images = np.empty(shape, np.float32 if floats else np.int16)
        for image, *sample in zip(images, volumes, slices, *rest, strict=True):
            DRAWN_BY[self.config.dtype](image, *sample)
        return (SimpleNamespace(as_tensor=lambda: images),)


@pytest.fixture(scope="session")
def plain_pipeline():
    """What fixtures that outlive a test put in the place of DALI's pipeline."""
    return PlainPipeline


@pytest.fixture
def uncompiled_reader(monkeypatch, plain_pipeline):
    monkeypatch.setattr("lumbar.train.reader.build_pipeline", plain_pipeline)
