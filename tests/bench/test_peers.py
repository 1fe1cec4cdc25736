"""The libraries' loaders give the box that they are asked for, and leave nothing behind."""

import multiprocessing
import multiprocessing.util
import pickle
import tempfile
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from lumbar.bench.peers import task as tasks
from lumbar.bench.peers.libraries import LIBRARIES
from lumbar.bench.peers.task import (
    bytes_in_memory,
    left_out_steps,
    notes_on_libraries,
    read_at_pixel_size,
    spread_rows,
    task_of,
)

from lumbar.bench.loaders import loaders
from lumbar.bench.loaders.loaders import (
    LoaderInput,
    LoaderSpec,
    lacking_package,
    lacking_shared_memory,
    open_loader,
    start_fork_server,
)
from lumbar.cache.names import SeriesType
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples

CPU = torch.device("cpu")
needs_libraries = pytest.mark.skipif(
    not all(find_spec(one.package) for one in LIBRARIES.values()),
    reason="the libraries are not here: install lumbar[bench]",
)


def make_source(cache, config, dtype=torch.float32, rows=None, **crop):
    series = Samples.of_series(cache, cache.rows_of(config.series) if rows is None else rows)
    box = config.crop.model_copy(update=crop)
    plan = Plan(series, box, config.augment, batch=2, shuffle=True, seed=3)
    return LoaderInput(cache, plan, CPU, dtype, None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    multiprocessing.util.get_temp_dir()  # the one of all processes, which stays
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@needs_libraries
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_gives_batches_like_all_others(smooth_cache, run_config, folder, name):
    source = make_source(smooth_cache, run_config, torch.float16)
    with open_loader(source, LoaderSpec("cache_dataloader", 0)) as batches:
        usual = next(batches)
    with open_loader(source, LoaderSpec(name, 0)) as batches:
        drawn = [next(batches) for _ in range(3)]
        assert len(list(folder.iterdir())) == (name == "monai_persistent")
    for batch in drawn:
        assert batch.image.shape == usual.image.shape == (2, 4, 1, 48, 40)
        assert batch.image.dtype == torch.float16
        assert batch.image.std() > 0.1
        assert [r.index for r in batch.requests] == [r.index for r in usual.requests]
        for field in ("present", "position", "target", "known", "lengths"):
            assert torch.equal(getattr(batch, field), getattr(usual, field)), field
    assert not torch.equal(drawn[0].image, drawn[1].image)
    assert list(folder.iterdir()) == []
    assert next(batches, None) is None


@needs_libraries
@pytest.mark.parametrize(
    "name",
    ["torchio", "batchgeneratorsv2", pytest.param("monai_persistent", marks=pytest.mark.slow)],
)
def test_a_worker_ends_with_the_stream(smooth_cache, run_config, folder, name):
    before = set(threading.enumerate())
    source = make_source(smooth_cache, run_config)
    spec = LoaderSpec(name, 1)
    start_fork_server([spec])
    with open_loader(source, spec) as batches:
        assert [next(batches).image.shape for _ in range(4)] == [(2, 4, 1, 48, 40)] * 4
        assert len(multiprocessing.active_children()) == 1
    assert multiprocessing.active_children() == []
    assert list(folder.iterdir()) == []
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


@needs_libraries
def test_monai_is_left_as_it_was(smooth_cache, run_config):
    from monai.data import get_track_meta  # noqa: PLC0415

    assert get_track_meta()
    with open_loader(make_source(smooth_cache, run_config), LoaderSpec("monai_cache", 0)) as drawn:
        next(drawn)
        assert not get_track_meta()
    assert get_track_meta()


def test_a_task_is_that_of_the_plan(smooth_cache, run_config):
    pixels = {SeriesType.SAGITTAL_T2: 0.75, SeriesType.AXIAL_T2: 9.0}
    source = make_source(smooth_cache, run_config, pick="all", slices=3, pixel_mm_of=pixels)
    task = task_of(source.cache, source.plan)
    # Of the first batch the deeper series counts, in threes.
    deepest = max(smooth_cache.series["depth"][r.index] for r in source.plan.requests(0, 0))
    assert task.crop.slices == -(-deepest // 3) * 3
    assert task.crop.pixel_mm == 0.75
    assert (task.batch, task.seed, task.root) == (2, 3, smooth_cache.root)
    assert (task.rows, task.augment) == ([0, 1, 2, 3], run_config.augment)
    assert pickle.loads(pickle.dumps(task)) == task


def test_a_volume_begins_with_its_pixels_scaled(smooth_cache, run_config):
    task = task_of(smooth_cache, make_source(smooth_cache, run_config, pixel_mm=0.45).plan)
    doubled = [read_at_pixel_size(smooth_cache, row, 0.45) for row in task.rows]
    assert doubled[2].shape == (5, 128, 112)
    assert sum(volume.nbytes for volume in doubled) == bytes_in_memory(smooth_cache, task)
    same = read_at_pixel_size(smooth_cache, 1, 0.9)
    np.testing.assert_allclose(same, smooth_cache.volume(1) / np.float32(255), atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "batch", "first_and_last", "count"),
    [(2000, 8, (0, 1968), 64), (70, 12, (0, 68), 60), (500, 100, (0, 495), 100), (5, 2, (0, 3), 4)],
)
def test_rows_are_whole_batches_evenly_spread(rows, batch, first_and_last, count):
    chosen = spread_rows(range(rows), batch)
    assert (chosen[0], chosen[-1]) == first_and_last
    assert len(chosen) == count
    assert len(set(np.diff(chosen))) <= 2


def test_what_libraries_leave_out_is_said(smooth_cache, run_config, monkeypatch):
    plan = make_source(smooth_cache, run_config, rows=[0, 1, 2, 3]).plan
    assert left_out_steps(plan) == []
    (note,) = notes_on_libraries(plan)
    assert "before their first batch" in note
    monkeypatch.setattr(tasks, "MAX_SERIES", 3)
    augment = AugmentConfig(noise=0.1, mixup=0.2, probability=0.7)
    more = run_config.model_copy(update={"augment": augment})
    plan = make_source(smooth_cache, more, rows=[0, 1, 2, 3], centre="random").plan
    assert left_out_steps(plan) == ["augment.noise", "augment.mixup", "crop.centre"]
    _, limited, less = notes_on_libraries(plan)
    assert "2 of the 4 series" in limited
    assert "augment.noise, augment.mixup, crop.centre" in less


def test_shared_memory_holds_the_volumes_too(smooth_cache, run_config, monkeypatch):
    source = make_source(smooth_cache, run_config)
    batches = 4 * 2 * 4 * 48 * 40 * 3
    volumes = bytes_in_memory(smooth_cache, task_of(smooth_cache, source.plan))
    usage = type("Usage", (), {"free": batches + volumes - 1})
    monkeypatch.setattr(loaders.shutil, "disk_usage", lambda _: usage)
    assert "monai_cache_1_workers" in lacking_shared_memory(source, LoaderSpec("monai_cache", 1))
    for spec in (LoaderSpec("monai_cache", 0), LoaderSpec("monai_persistent", 1)):
        assert lacking_shared_memory(source, spec) is None


def test_a_library_that_is_not_here_is_told(monkeypatch):
    monkeypatch.setattr(loaders, "find_spec", lambda name: None if name == "torchio" else object())
    told = lacking_package(LoaderSpec("torchio", 2))
    assert "torchio_2_workers was not measured" in told
    assert "lumbar[bench]" in told
    for kind in ("monai_cache", "cache_dataloader", "lumbar_reader"):
        assert lacking_package(LoaderSpec(kind, 2)) is None
