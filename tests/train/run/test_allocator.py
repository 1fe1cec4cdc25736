import os
import platform

import pytest
import torch

from lumbar.train.run.allocator import NEWER_SETTING, SETTING, let_segments_grow
from lumbar.train.run.distributed import joined_ranks

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch):
    for name in (SETTING, NEWER_SETTING, "WORLD_SIZE"):
        # Set first, so that it is taken away again at the end.
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-generic")


def test_segments_grow_on_a_gpu_alone():
    with joined_ranks(CPU):
        assert SETTING not in os.environ
    with joined_ranks(CUDA):
        assert os.environ[SETTING] == "expandable_segments:True"


@pytest.mark.parametrize("name", [SETTING, NEWER_SETTING])
def test_what_the_user_has_set_stays(monkeypatch, name):
    monkeypatch.setenv(name, "max_split_size_mb:64")
    let_segments_grow(CUDA)
    assert {n: os.environ.get(n) for n in (SETTING, NEWER_SETTING)} == {
        SETTING: None,
        NEWER_SETTING: None,
    } | {name: "max_split_size_mb:64"}


def test_they_do_not_grow_in_wsl(monkeypatch):
    monkeypatch.setattr(platform, "release", lambda: "5.15.153.1-microsoft-standard-WSL2")
    let_segments_grow(CUDA)
    assert SETTING not in os.environ
