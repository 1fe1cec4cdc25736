"""Cold reading: pages are dropped, and read again from the disk."""

import pytest
import torch

from lumbar.bench.loaders.loaders import LoaderSpec
from lumbar.bench.measure.cold import measure_cold, reads_files
from lumbar.bench.session import make_source
from lumbar.cache.store import Cache

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


def test_the_files_of_the_plan_alone_are_dropped_before_each_repeat(
    smooth_cache, run_config, monkeypatch
):
    dropped = []
    monkeypatch.setattr(
        "lumbar.bench.measure.cold.forget_files", lambda paths: dropped.append(set(paths))
    )
    source = make_source(smooth_cache, run_config, CPU, None)
    measure_cold(lambda: source, LoaderSpec("lumbar_reader", 1), seconds=60.0, repeats=2)
    rows = source.plan.samples.rows
    assert len(rows) < len(smooth_cache.series)
    files = {smooth_cache.root / smooth_cache.series["path"][row] for row in rows}
    assert dropped == [files, files]


@pytest.mark.parametrize(
    ("spec", "reads"),
    [
        (LoaderSpec("lumbar_reader", 2, "disk"), True),
        (LoaderSpec("lumbar_reader", 2, "device"), False),
        (LoaderSpec("cache_dataloader", 2), True),
        (LoaderSpec("dicom_dataloader", 2), False),
    ],
)
def test_what_reads_the_caches_files_can_be_cold(spec, reads):
    assert reads_files(spec) == reads
