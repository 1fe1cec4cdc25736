"""The libraries' loaders give the box that they are asked for, and leave nothing behind."""

import itertools
import multiprocessing
import multiprocessing.util
import os
import sys
import tempfile
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from lumbar.bench.loaders.dataloader import start_worker_server
from lumbar.cache.store import Cache

NAMES = ("monai_cache", "monai_persistent", "torchio", "batchgeneratorsv2")
SHAPE = (2, 18, 1, 48, 64)
needs_libraries = pytest.mark.skipif(
    not all(map(find_spec, ("monai", "torchio", "batchgeneratorsv2"))),
    reason="the libraries are not here: install lumbar[bench]",
)


def contestant(name):
    from contest.contestants import CONTESTANTS  # noqa: PLC0415

    return next(one for one in CONTESTANTS if one.name == name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    multiprocessing.util.get_temp_dir()  # the one of all processes, which stays
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@needs_libraries
@pytest.mark.parametrize("name", NAMES)
def test_a_stream_leaves_no_file(contest, folder, name):
    with contestant(name).open(contest, 0) as batches:
        first, second = itertools.islice(batches, 2)
        assert len(list(folder.iterdir())) == (name == "monai_persistent")
    assert first.shape == second.shape == SHAPE
    assert first.std() > 0.1
    assert not torch.equal(first, second)
    assert list(folder.iterdir()) == []
    assert next(batches, None) is None


@needs_libraries
@pytest.mark.parametrize(
    "name",
    ["torchio", "batchgeneratorsv2", pytest.param("monai_persistent", marks=pytest.mark.slow)],
)
def test_a_worker_ends_with_the_stream(contest, folder, monkeypatch, name):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part for part in sys.path if part))
    before = set(threading.enumerate())
    start_worker_server([contestant(name).module])
    with contestant(name).open(contest, 1) as batches:
        assert [image.shape for image in itertools.islice(batches, 4)] == [SHAPE] * 4
        assert len(multiprocessing.active_children()) == 1
    assert multiprocessing.active_children() == []
    assert list(folder.iterdir()) == []
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


@needs_libraries
def test_monai_is_left_as_it_was(contest):
    from monai.data import get_track_meta  # noqa: PLC0415

    assert get_track_meta()
    with contestant("monai_cache").open(contest, 0) as batches:
        next(batches)
        assert not get_track_meta()
    assert get_track_meta()


def test_a_volume_begins_with_its_pixels_scaled(contest):
    from peers.volumes import read_at_pixel_size  # noqa: PLC0415

    cache = Cache(contest.root)
    entry = cache.series.row(1, named=True)
    assert entry["spacing_h_mm"] == pytest.approx(entry["spacing_w_mm"])
    same = read_at_pixel_size(cache, 1, entry["spacing_h_mm"])
    stored = cache.volume(1) * np.float32(entry["scale"]) + np.float32(entry["offset"])
    np.testing.assert_allclose(same, stored, atol=1e-6)
    half = read_at_pixel_size(cache, 1, entry["spacing_h_mm"] / 2)
    assert half.shape == (entry["depth"], 2 * entry["height"], 2 * entry["width"])


def test_shuffled_indices_go_on_and_on():
    from peers.volumes import Shuffled  # noqa: PLC0415

    shuffled = iter(Shuffled(6, 4, seed=1))
    drawn = [next(shuffled) for _ in range(3)]
    assert [len(one) for one in drawn] == [4, 4, 4]
    twice = [*drawn[0], *drawn[1], *drawn[2]]
    assert sorted(twice[:6]) == sorted(twice[6:]) == list(range(6))
    assert twice[:6] != twice[6:]


def test_images_are_stacked_and_filled_up():
    from peers.volumes import stack_padded  # noqa: PLC0415

    images = [torch.full((depth, 2, 3), float(depth)) for depth in (1, 3)]
    batch = stack_padded(images, 3)
    assert batch.shape == (2, 3, 1, 2, 3)
    assert batch[:, :, 0, 0, 0].tolist() == [[1, 0, 0], [3, 3, 3]]
