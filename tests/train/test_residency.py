"""Where volumes lie makes no difference to what is read of them."""

import threading

import numpy as np
import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.train import residency
from lumbar.train.augment import unchanged
from lumbar.train.residency import (
    DecompressedVolumes,
    MappedVolumes,
    ResidentVolumes,
    choose_tier,
    open_volumes,
    stored_bytes,
)
from lumbar.train.views import View

CPU = torch.device("cpu")
CUDA = torch.device("cuda:0")


def view(row, *slices):
    return View(
        row=row,
        slices=np.array(slices, np.int32),
        position=np.zeros(len(slices), np.float32),
        matrix=np.zeros((2, 3), np.float32),
        numbers=unchanged((16, 16)),
        key=np.zeros(2, np.uint32),
    )


@pytest.fixture
def views(spine):
    deepest = int(spine.series["depth"][0]) - 1
    return [view(0, 1, deepest, 0, -1), view(3, 2, -1, -1, -1), view(1, -1, -1, -1, -1)]


def read(volumes, views):
    arrays, slices = volumes.fetch(views)
    assert len(arrays) == len(views)
    return [
        [np.zeros(array.shape[1:]) if d < 0 else np.array(array[d]) for d in picked]
        for array, picked in zip(arrays, slices, strict=True)
    ]


def test_every_way_gives_the_slices_of_the_views(spine, views):
    resident = ResidentVolumes(spine, [0, 1, 3], CPU)
    told = list(resident.load())
    assert told[-1] == (stored_bytes(spine, [0, 1, 3]),) * 2
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    decompressed = DecompressedVolumes(spine, 2)
    ways = [read(way, views) for way in (MappedVolumes(spine), decompressed, resident)]
    decompressed.close()
    for number, wanted in enumerate(views):
        volume = spine.volume(wanted.row)
        for d, index in enumerate(wanted.slices):
            expected = volume[index] if index >= 0 else np.zeros(volume.shape[1:])
            for way in ways:
                assert np.array_equal(way[number][d], expected)


def test_slices_are_decompressed_by_threads_that_end(spine, views):
    before = set(threading.enumerate())
    volumes = DecompressedVolumes(spine, 3)
    read(volumes, views)
    started = set(threading.enumerate()) - before
    assert 1 <= len(started) <= 3
    assert all(thread.name.startswith("lumbar-decompress") for thread in started)
    volumes.close()
    assert set(threading.enumerate()) == before


def test_each_tier_and_profile_has_its_way(spine, monkeypatch):
    for profile, tier, way in (
        ("fast", "disk", MappedVolumes),
        ("archive", "disk", DecompressedVolumes),
        ("fast", "device", ResidentVolumes),
        ("archive", "device", ResidentVolumes),
    ):
        monkeypatch.setattr(spine, "profile", profile)
        volumes = open_volumes(spine, [0], tier=tier, device=CPU, threads=1)
        assert isinstance(volumes, way)
        volumes.close()


def test_bytes_are_those_of_the_uncompressed_voxels(spine):
    rows = list(range(spine.series.height))
    assert stored_bytes(spine, rows) == sum(spine.volume(row).nbytes for row in rows)


@pytest.mark.parametrize("tier", ["disk", "device"])
def test_a_tier_that_is_asked_for_is_taken(spine, tier):
    assert choose_tier(tier, spine, [0], CPU)[0] == tier


def test_auto_stays_on_the_disk_without_a_gpu(spine):
    tier, why = choose_tier("auto", spine, [0, 1], CPU)
    assert tier == "disk"
    assert "page cache" in why


def test_auto_takes_half_of_a_gpus_free_memory_at_most(spine, monkeypatch):
    needed = stored_bytes(spine, [0, 1])
    for free, expected in ((2 * needed, "device"), (2 * needed - 1, "disk")):
        monkeypatch.setattr(residency.torch.cuda, "mem_get_info", lambda _, free=free: (free, 0))
        tier, why = choose_tier("auto", spine, [0, 1], CUDA)
        assert tier == expected
        assert why.startswith(f"tier {expected}: ")


def test_volumes_that_do_not_fit_are_refused_before_any_is_loaded(spine, monkeypatch):
    monkeypatch.setattr(residency.torch.cuda, "mem_get_info", lambda _: (10, 0))
    with pytest.raises(InputError, match="do not fit"):
        ResidentVolumes(spine, [0], CUDA)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_a_tenth_of_the_free_memory_is_left(spine, monkeypatch, tmp_path, device):
    def have(nbytes):
        kibibytes = int(nbytes) // 1024
        memory = tmp_path / "meminfo"
        memory.write_text(f"MemFree: 1 kB\nMemAvailable: {kibibytes} kB\nHugePages_Total: 0\n")
        monkeypatch.setattr(residency, "MEMORY", memory)
        monkeypatch.setattr(residency.torch.cuda, "mem_get_info", lambda _: (kibibytes * 1024, 0))

    needed = stored_bytes(spine, [0, 1, 2])
    have(needed / 0.9 + 1024)
    ResidentVolumes(spine, [0, 1, 2], device)
    have(needed / 0.9 - 1024)
    with pytest.raises(InputError, match=r"do not fit on the device: .*; expected at most 90%"):
        ResidentVolumes(spine, [0, 1, 2], device)


def test_the_memory_of_this_machine_is_known():
    free = residency.free_bytes(CPU)
    assert 2**20 < free < 2**50


def test_what_torch_keeps_of_a_gpus_memory_is_free(monkeypatch):
    for name, answer in (
        ("mem_get_info", (100, 1000)),
        ("memory_reserved", 70),
        ("memory_allocated", 30),
    ):
        monkeypatch.setattr(residency.torch.cuda, name, lambda _, answer=answer: answer)
    assert residency.free_bytes(CUDA) == 140
