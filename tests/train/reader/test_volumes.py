"""Where volumes lie makes no difference to what is read of them."""

import threading

import numpy as np
import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import unchanged
from lumbar.train.plan.slices import NO_SLICE
from lumbar.train.plan.view import View
from lumbar.train.reader import placement
from lumbar.train.reader.placement import stored_bytes
from lumbar.train.reader.volumes import (
    DecompressedVolumes,
    MappedVolumes,
    ResidentVolumes,
    open_volumes,
)

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
    progress = list(resident.load())
    assert progress[-1] == (stored_bytes(spine, [0, 1, 3]),) * 2
    assert [done for done, _ in progress] == sorted({done for done, _ in progress})
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


def test_all_slices_of_a_step_are_picked_at_once(spine):
    """Of several sizes of slices too; one that is not there is the first of its volume."""
    rows = list(range(spine.series.height))
    sizes = set(spine.series.select("height", "width").rows())
    assert len(sizes) > 1
    resident = ResidentVolumes(spine, rows, CPU)
    list(resident.load())
    slices = np.stack([[depth - 1, 0, 2, NO_SLICE] for depth in spine.series["depth"]])
    picked = resident.pick(rows[::-1], slices[::-1].astype(np.int32))
    for row, of_row, wanted in zip(rows[::-1], picked, slices[::-1], strict=True):
        volume = spine.volume(row)
        assert np.array_equal(of_row.numpy()[..., 0], volume[np.maximum(wanted, 0)])


def test_slices_whose_bytes_are_no_multiple_of_eight_are_picked(tmp_path, write_cache):
    rng = np.random.default_rng(3)
    volume = rng.integers(0, 256, (5, 9, 7), np.uint8)
    root = write_cache(
        tmp_path / "cache",
        [("s", "1", SeriesType.SAGITTAL_T2, volume, np.diag([4.0, 1, 1, 1]))],
        {"s": np.zeros(25, np.int8)},
    )
    resident = ResidentVolumes(Cache(root), [0], CPU)
    list(resident.load())
    (picked,) = resident.pick([0], np.array([[4, 1]], np.int32))
    assert np.array_equal(picked.numpy()[..., 0], volume[[4, 1]])


def test_volumes_that_do_not_fit_are_refused_before_any_is_loaded(spine, monkeypatch):
    monkeypatch.setattr(placement.torch.cuda, "mem_get_info", lambda _: (10, 0))
    with pytest.raises(InputError, match="do not fit"):
        ResidentVolumes(spine, [0], CUDA)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_a_tenth_of_the_free_memory_is_left(spine, monkeypatch, tmp_path, device):
    def have(nbytes):
        kibibytes = int(nbytes) // 1024
        memory = tmp_path / "meminfo"
        memory.write_text(f"MemFree: 1 kB\nMemAvailable: {kibibytes} kB\nHugePages_Total: 0\n")
        monkeypatch.setattr(placement, "MEMORY", memory)
        monkeypatch.setattr(placement.torch.cuda, "mem_get_info", lambda _: (kibibytes * 1024, 0))

    needed = stored_bytes(spine, [0, 1, 2])
    have(needed / 0.9 + 1024)
    ResidentVolumes(spine, [0, 1, 2], device)
    have(needed / 0.9 - 1024)
    with pytest.raises(InputError, match=r"do not fit on the device: .*; expected at most 90%"):
        ResidentVolumes(spine, [0, 1, 2], device)
