"""Which changes are tried, by what bounds a run; and what goes to the device."""

import os
from dataclasses import replace

import pytest
import torch

from lumbar.bench.changes import COMPILE_SECONDS, changes_for, thread_changes
from lumbar.bench.loaders.loaders import LoaderSpec
from lumbar.bench.loaders.transfer import bytes_to_device
from lumbar.bench.session import make_source

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
READER = LoaderSpec("lumbar_reader", 2)


def settings(bound, config, device, series=100):
    return [change.setting for change in changes_for(bound, config, READER, device, series=series)]


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))


def test_threads_are_changed_where_the_loader_or_the_host_is_the_bound(run_config, four_cores):
    assert settings("input", run_config, CPU)[:2] == ["--threads 4", "--threads 1"]
    assert settings("host", run_config, CPU)[:2] == ["--threads 4", "--threads 1"]
    assert not any("threads" in one for one in settings("compute", run_config, CPU))
    changed = list(thread_changes(run_config, READER))
    assert [change.spec.workers for change in changed] == [4, 1]
    assert all(change.config == run_config for change in changed)


def test_the_models_settings_are_those_that_a_user_types(run_config):
    assert settings("compute", run_config, CUDA) == [
        "--set bfloat16=true", "--set optim.batch=4", "--set compile=true",
    ]  # fmt: skip
    half = run_config.model_copy(update={"bfloat16": True})
    assert settings("compute", half, CUDA) == ["--set optim.batch=4", "--set compile=true"]
    assert settings("compute", half, CPU) == ["--set bfloat16=false", "--set optim.batch=4"]
    compiled = half.model_copy(update={"compile": True})
    assert settings("compute", compiled, CUDA) == ["--set optim.batch=4"]


def test_changes_change_what_they_say(run_config):
    changes = {
        change.setting: change.config
        for change in changes_for("compute", run_config, READER, CUDA, series=100)
    }
    assert changes["--set bfloat16=true"].bfloat16
    assert changes["--set optim.batch=4"].optim == run_config.optim.model_copy(update={"batch": 4})
    assert changes["--set compile=true"].compile


def test_no_batch_is_larger_than_there_are_series(run_config):
    assert "--set optim.batch=4" in settings("input", run_config, CPU, series=4)
    assert "--set optim.batch=4" not in settings("input", run_config, CPU, series=3)


def test_bytes_to_the_device_are_those_of_the_way(smooth_cache, run_config):
    source = replace(make_source(smooth_cache, run_config, CPU, None), device=CUDA)
    assert bytes_to_device(source, LoaderSpec("cache_dataloader", 0)) == 4 * 4 * 48 * 40
    drawn = {"cpu": 2 * 4 * 48 * 40, "gpu": 4 * 64 * 56}
    source = replace(source, dtype=torch.bfloat16)
    for draw, nbytes in drawn.items():
        assert bytes_to_device(source, LoaderSpec("lumbar_reader", 2, "disk", draw)) == nbytes
    assert bytes_to_device(source, LoaderSpec("lumbar_reader", 2, "device", "gpu")) == 0
    on_cpu = replace(source, device=CPU)
    assert bytes_to_device(on_cpu, LoaderSpec("cache_dataloader", 0)) is None


def test_only_compiling_needs_much_time(run_config):
    changes = changes_for("host", run_config, READER, CUDA, series=100)
    needed = {change.setting: change.least_seconds for change in changes}
    assert needed.pop("--set compile=true") == COMPILE_SECONDS
    assert set(needed.values()) == {0.0}


def test_bytes_to_the_device_are_those_of_all_slices_where_all_are_picked(smooth_cache, run_config):
    crop = run_config.crop.model_copy(update={"pick": "all"})
    config = run_config.model_copy(update={"crop": crop})
    source = replace(make_source(smooth_cache, config, CPU, None), device=CUDA)
    deepest = max(len(view.slices) for one in source.plan.requests(0, 0) for view in one.views)
    assert deepest > crop.slices
    assert bytes_to_device(source, LoaderSpec("cache_dataloader", 0)) == 4 * deepest * 48 * 40
