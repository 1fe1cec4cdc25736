"""From a benchmark's results to the rates that the model of the whole data set needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lumbar.bench.loaders.loaders import LoaderSpec
from lumbar.bench.measure.results import Ceiling
from lumbar.bench.projection import MeasuredRates
from lumbar.bench.report.report import LoaderResult
from lumbar.bench.session import Bench
from lumbar.train.reader.placement import stored_bytes
from lumbar.train.telemetry.cpu import usable_cores


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How fast `lumbar preprocess` was on this machine, with so many worker processes."""

    files_per_second: float
    workers: int


def measured_rates(
    bench: Bench,
    reader: LoaderSpec,
    loaders: Sequence[LoaderResult],
    ceilings: Sequence[Ceiling],
    preprocessing: Preprocessing | None,
) -> MeasuredRates:
    """Return what was measured of the reader that the verdict is about.

    Where a step is too long to be put behind the loaders, they do not slow it down: its ceiling is
    what training reaches.
    """
    table = bench.cache.series
    rows = bench.cache.rows_of(bench.run_config.series_type)
    slices = int(table[rows]["depth"].sum())
    own = next((loader for loader in loaders if loader.spec == reader), None)
    real = next((ceiling for ceiling in ceilings if not ceiling.simulated), None)
    behind = None if own is None or real is None else own.behind(real)
    training = behind or real
    on_gpu = bench.device.type == "cuda"
    return MeasuredRates(
        series_type=bench.run_config.series_type,
        epochs=bench.run_config.epochs,
        folds=bench.run_config.split.folds,
        files_per_second=preprocessing.files_per_second if preprocessing else None,
        preprocess_workers=preprocessing.workers if preprocessing else 1,
        bytes_per_slice=int(table["nbytes"].sum()) / int(table["depth"].sum()),
        profile=bench.cache.profile,
        slices_per_series=slices / len(rows),
        voxel_bytes_per_slice=stored_bytes(bench.cache, rows) / slices,
        training_volumes_per_second=training.volumes_per_second.value if training else None,
        ceiling_volumes_per_second=real.volumes_per_second.value if real and on_gpu else None,
        reader_volumes_per_second=own.alone.volumes_per_second.value if own else None,
        reader_threads=reader.workers,
        cores=usable_cores(),
        price_per_hour=bench.config.price_per_hour,
    )
