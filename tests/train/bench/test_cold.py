"""Cold reading: pages are dropped, and read again from the disk."""

import os
from pathlib import Path

import pytest
import torch

from lumbar.cache.store import Cache
from lumbar.train.bench.cold import forget_pages, measure_cold, reads_files
from lumbar.train.bench.loaders import LoaderSpec
from lumbar.train.bench.state import make_source

CPU = torch.device("cpu")


def test_each_repeat_opens_the_cache_anew_and_reads_an_epoch(smooth_cache, run_config):
    opened = []

    def open_source():
        opened.append(make_source(Cache(smooth_cache.root), run_config, CPU, None))
        return opened[-1]

    cold = measure_cold(open_source, LoaderSpec("lumbar_reader", 2), seconds=60.0, repeats=3)
    assert len(opened) == 3
    assert cold.volumes_per_second.low > 0
    assert cold.first_batch_seconds.low > 0
    assert cold.disk_bytes_per_second is None or cold.disk_bytes_per_second.low >= 0


def test_pages_are_asked_to_be_dropped_of_the_named_rows_alone(smooth_cache, monkeypatch):
    dropped = []

    def advise(descriptor, start, length, advice):
        dropped.append((Path(f"/proc/self/fd/{descriptor}").readlink(), start, length, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(os, "fsync", lambda descriptor: advise(descriptor, 0, 0, "written"))
    forget_pages(smooth_cache, [1, 3])
    paths = [smooth_cache.root / smooth_cache.series["path"][row] for row in (1, 3)]
    # What is not written yet stays in memory, whatever is asked.
    steps = ("written", os.POSIX_FADV_DONTNEED)
    assert dropped == [(path, 0, 0, step) for path in paths for step in steps]


@pytest.mark.parametrize(
    ("spec", "reads"),
    [
        (LoaderSpec("lumbar_reader", 2, "disk"), True),
        (LoaderSpec("lumbar_reader", 2, "device"), False),
        (LoaderSpec("cache_dataloader", 2), True),
        (LoaderSpec("dicom_dataloader", 2), False),
        (LoaderSpec("monai_cache", 2), False),
    ],
)
def test_what_reads_the_caches_files_can_be_cold(spec, reads):
    assert reads_files(spec) == reads
