"""Where volumes lie and pixels are rendered: decided by memory and cores, explained in one line."""

import numpy as np
import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.reader import placement
from lumbar.train.reader.placement import (
    choose_placement,
    cores_needed,
    default_threads,
    stored_bytes,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda:0")
LIGHT = AugmentConfig()
HEAVY = AugmentConfig(blur_mm=1.0)


@pytest.fixture
def place(spine, monkeypatch):
    """Return a function that places two series: bytes free are multiples of what they need."""
    needed = stored_bytes(spine, [0, 1])

    def choose(*, memory=1.0, on_gpu=2.0, threads=16, device=CUDA, augment=LIGHT, **options):
        free = {"cpu": int(memory * needed), "cuda": int(on_gpu * needed)}
        monkeypatch.setattr(placement, "free_bytes", lambda of: free[of.type])
        return choose_placement(spine, [0, 1], device, threads=threads, augment=augment, **options)

    return choose


def chosen(placed):
    return placed.tier, placed.draw


def test_bytes_are_those_of_the_uncompressed_voxels(spine):
    rows = list(range(spine.series.height))
    assert stored_bytes(spine, rows) == sum(spine.volume(row).nbytes for row in rows)


def test_on_a_cpu_volumes_are_read_through_the_page_cache_and_the_compiled_pass_renders(place):
    assert chosen(place(device=CPU, memory=0.1, threads=1)) == ("disk", "cpu")
    assert "page cache" in place(device=CPU).why
    assert chosen(place(device=CPU, tier="device")) == ("device", "cpu")


@pytest.mark.parametrize(
    ("options", "expected", "reasons"),
    [
        ({}, ("disk", "cpu"), ("fit the", "16 reader threads; 4 feed any GPU")),
        ({"threads": 4}, ("disk", "cpu"), ("4 reader threads; 4 feed",)),
        ({"threads": 3}, ("disk", "gpu"), ("3 reader threads, fewer than the 4",)),
        ({"threads": 4, "augment": HEAVY}, ("disk", "gpu"), ("fewer than the 14",)),
        ({"memory": 0.99}, ("disk", "cpu"), ("the reader threads suffice",)),
        ({"memory": 0.99, "threads": 2}, ("device", "gpu"), ("where the volumes lie",)),
        (
            {"memory": 0.99, "threads": 2, "on_gpu": 1.9},
            ("disk", "gpu"),
            ("more than memory holds, and than half",),
        ),
        ({"tier": "device"}, ("device", "gpu"), ("as requested", "where the volumes lie")),
        ({"tier": "disk", "threads": 1}, ("disk", "gpu"), ("on disk (as requested)",)),
        ({"draw": "gpu"}, ("disk", "gpu"), ("rendered on the GPU (as requested)",)),
        ({"draw": "cpu", "threads": 1}, ("disk", "cpu"), ("rendered on the CPU (as requested)",)),
        ({"draw": "cpu", "threads": 1, "memory": 0.5}, ("disk", "cpu"), ("where the CPU reads",)),
        ({"tier": "device", "draw": "gpu"}, ("device", "gpu"), ("as requested",)),
    ],
)
def test_for_a_gpu_memory_and_threads_decide(place, options, expected, reasons):
    placed = place(**options)
    assert chosen(placed) == expected
    assert placed.rows == (0, 1)
    assert "\n" not in placed.why
    for part in reasons:
        assert part in placed.why


def test_a_compressed_cache_needs_more_cores():
    assert cores_needed(LIGHT, archive=True) > cores_needed(LIGHT, archive=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": CPU, "draw": "gpu"}, "--draw; got gpu, with the device cpu"),
        ({"tier": "device", "draw": "cpu"}, "--tier, --draw; .*--tier disk with --draw cpu"),
    ],
)
def test_what_contradicts_itself_is_refused(place, options, message):
    with pytest.raises(InputError, match=message):
        place(**options)


def test_the_memory_of_this_machine_is_known():
    assert 2**20 < placement.free_bytes(CPU) < 2**50


@pytest.mark.parametrize(("limit", "expected"), [(2048, 2048), (None, 4096 * 1024)])
def test_a_container_has_no_more_memory_than_its_limit(monkeypatch, tmp_path, limit, expected):
    memory = tmp_path / "meminfo"
    memory.write_text("MemFree: 1 kB\nMemAvailable: 4096 kB\n")
    monkeypatch.setattr(placement, "MEMORY", memory)
    monkeypatch.setattr(placement, "memory_limit_bytes", lambda: limit)
    assert placement.free_bytes(CPU) == expected


def test_what_torch_keeps_of_a_gpus_memory_is_free(monkeypatch):
    for name, answer in (
        ("mem_get_info", (100, 1000)),
        ("memory_reserved", 70),
        ("memory_allocated", 30),
    ):
        monkeypatch.setattr(placement.torch.cuda, name, lambda _, answer=answer: answer)
    assert placement.free_bytes(CUDA) == 140


def test_the_numbers_behind_the_rule_are_those_of_the_decision():
    assert np.isclose(placement.FASTEST_MODEL * placement.LIGHT_MS / 1000, 1.95)


@pytest.mark.parametrize(
    ("device", "cores", "expected"),
    [(CUDA, 16, 16), (CPU, 16, 4), (CPU, 2, 1), (CPU, 1, 1), (CUDA, 1, 1)],
)
def test_a_reader_leaves_the_cores_to_a_network_that_needs_them(
    monkeypatch, device, cores, expected
):
    monkeypatch.setattr(placement, "usable_cores", lambda: cores)
    assert default_threads(device) == expected
