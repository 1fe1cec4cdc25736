"""What the whole data set would take on this machine: measured rates times its counts.

What is counted, and what is taken to be so:

- A file is a slice. Every file is read and stored, none is left out.
- An epoch is every series of the trained type once, but the held-out fold: (folds - 1) / folds of
  them. The look at the held-out fold, checkpoints and the start of processes are left out.
- A run is one fold and one series type.
- A node's GPUs are each as fast as this machine's, and readers do not slow each other down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lumbar.cache.format import Profile
from lumbar.cache.names import SeriesType

STUDIES = 1975
"""Rows of ``train.csv`` of the RSNA 2024 Lumbar Spine Degenerative Classification data set."""

SERIES = {
    SeriesType.AXIAL_T2: 2340,
    SeriesType.SAGITTAL_T1: 1980,
    SeriesType.SAGITTAL_T2: 1974,
}
"""Rows of its ``train_series_descriptions.csv``, 6,294 together."""

FILES = 147_218
"""Files in its ``train_images``, 35.3 GB."""

NODE_GPUS = 8

HOUR_SECONDS = 3600
GB = 1e9

NO_SRC = "not measured: name the DICOM folder with --src"
NO_TRAINING = "not measured: no training step was measured behind the reader, try more --minutes"
NO_GPU = "not measured: a replayed batch on a GPU is needed, --device cuda"
NO_READER = "not measured: the reader alone was not, try more --minutes"
NO_PRICE = "not stated: name the price of an hour with --price-per-hour"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRates:
    """What was measured on this machine; None is not measured. All rates are above 0.

    Attributes
    ----------
    series_type, epochs, folds
        What the run's configuration trains, how often, and in how many parts it deals the studies.
    files_per_second, preprocess_workers
        Of `lumbar preprocess`, with so many worker processes.
    bytes_per_slice, profile
        Mean size of a stored slice in the user's cache, and how it is stored.
    slices_per_series, voxel_bytes_per_slice
        Of the trained type in the user's cache: mean number of slices, and what one is in memory.
    training_volumes_per_second
        The real training step behind the reader.
    ceiling_volumes_per_second
        The training step on a replayed batch on one GPU; None without a GPU.
    reader_volumes_per_second, reader_threads
        The reader alone, a process of so many threads.
    cores
        Those of this machine.
    price_per_hour
        Of this machine, in any currency.
    """

    series_type: SeriesType
    epochs: int
    folds: int
    files_per_second: float | None
    preprocess_workers: int
    bytes_per_slice: float
    profile: Profile
    slices_per_series: float
    voxel_bytes_per_slice: float
    training_volumes_per_second: float | None
    ceiling_volumes_per_second: float | None
    reader_volumes_per_second: float | None
    reader_threads: int
    cores: int
    price_per_hour: float | None


@dataclass(frozen=True, slots=True)
class ProjectionLine:
    """One expected number; where ``value`` is None, ``arithmetic`` says what is missing."""

    name: str
    label: str
    arithmetic: str
    value: float | None
    unit: str


def project(rates: MeasuredRates) -> tuple[ProjectionLine, ...]:
    """Return what the full data set would take on this machine, and what a node would need."""
    preprocess = _preprocess(rates)
    epoch = _epoch(rates)
    run = _run(rates, epoch)
    hours = _hours(preprocess, run)
    wanted = _wanted(rates)
    readers = _readers(rates, wanted)
    return (
        preprocess,
        _cache_size(rates),
        _trained_volumes(rates),
        epoch,
        run,
        hours,
        _cost(rates, hours),
        wanted,
        readers,
        _cores(rates, readers),
    )


def _preprocess(rates: MeasuredRates) -> ProjectionLine:
    label = f"preprocessing {STUDIES:,} studies"
    if rates.files_per_second is None:
        return ProjectionLine("preprocess", label, NO_SRC, None, "s")
    label += f", {_counted(rates.preprocess_workers, 'worker')}"
    seconds = FILES / rates.files_per_second
    arithmetic = f"{FILES:,} files / {_text(rates.files_per_second)} files/s = {_text(seconds)} s"
    return ProjectionLine("preprocess", label, arithmetic, seconds, "s")


def _cache_size(rates: MeasuredRates) -> ProjectionLine:
    size = FILES * rates.bytes_per_slice / GB
    arithmetic = f"{FILES:,} slices x {_text(rates.bytes_per_slice)} bytes = {_text(size)} GB"
    return ProjectionLine("cache_size", f"cache, profile {rates.profile}", arithmetic, size, "GB")


def _trained_volumes(rates: MeasuredRates) -> ProjectionLine:
    series = SERIES[rates.series_type]
    size = series * rates.slices_per_series * rates.voxel_bytes_per_slice / GB
    arithmetic = (
        f"{series:,} series x {_text(rates.slices_per_series)} slices x "
        f"{_text(rates.voxel_bytes_per_slice)} bytes = {_text(size)} GB"
    )
    label = f"{rates.series_type} alone, which tier device would hold"
    return ProjectionLine("trained_volumes", label, arithmetic, size, "GB")


def _epoch(rates: MeasuredRates) -> ProjectionLine:
    label = f"epoch of {rates.series_type}"
    speed = rates.training_volumes_per_second
    if speed is None:
        return ProjectionLine("epoch", label, NO_TRAINING, None, "s")
    series = SERIES[rates.series_type]
    trained = round(series * (rates.folds - 1) / rates.folds)
    seconds = trained / speed
    terms = f"{trained:,} series / {_text(speed)} volumes/s"
    parts = f"{rates.folds - 1} of {rates.folds} folds of {series:,} series"
    return ProjectionLine("epoch", label, f"{parts}: {terms} = {_text(seconds)} s", seconds, "s")


def _run(rates: MeasuredRates, epoch: ProjectionLine) -> ProjectionLine:
    label = f"run of {_counted(rates.epochs, 'epoch')}, one fold"
    if epoch.value is None:
        return ProjectionLine("run", label, epoch.arithmetic, None, "s")
    seconds = rates.epochs * epoch.value
    arithmetic = f"{rates.epochs:,} epochs x {_text(epoch.value)} s = {_text(seconds)} s"
    return ProjectionLine("run", label, arithmetic, seconds, "s")


def _hours(preprocess: ProjectionLine, run: ProjectionLine) -> ProjectionLine:
    label = "preprocessing and run"
    for part in (preprocess, run):
        if part.value is None:
            return ProjectionLine("hours", label, part.arithmetic, None, "h")
    assert preprocess.value is not None
    assert run.value is not None
    hours = (preprocess.value + run.value) / HOUR_SECONDS
    arithmetic = (
        f"({_text(preprocess.value)} s + {_text(run.value)} s) / {HOUR_SECONDS:,} s = "
        f"{_text(hours)} h"
    )
    return ProjectionLine("hours", label, arithmetic, hours, "h")


def _cost(rates: MeasuredRates, hours: ProjectionLine) -> ProjectionLine:
    label, unit = "cost of preprocessing and run", "in the price's currency"
    if rates.price_per_hour is None:
        return ProjectionLine("cost", label, NO_PRICE, None, unit)
    if hours.value is None:
        return ProjectionLine("cost", label, hours.arithmetic, None, unit)
    cost = hours.value * rates.price_per_hour
    arithmetic = f"{_text(hours.value)} h x {_text(rates.price_per_hour)} an hour = {_text(cost)}"
    return ProjectionLine("cost", label, arithmetic, cost, unit)


def _wanted(rates: MeasuredRates) -> ProjectionLine:
    label = f"what {NODE_GPUS} such GPUs would take"
    ceiling = rates.ceiling_volumes_per_second
    if ceiling is None:
        return ProjectionLine("node_volumes", label, NO_GPU, None, "volumes/s")
    wanted = NODE_GPUS * ceiling
    arithmetic = f"{NODE_GPUS} x {_text(ceiling)} volumes/s = {_text(wanted)} volumes/s"
    return ProjectionLine("node_volumes", label, arithmetic, wanted, "volumes/s")


def _readers(rates: MeasuredRates, wanted: ProjectionLine) -> ProjectionLine:
    threads = _counted(rates.reader_threads, "thread")
    label = f"readers of {threads} that keep {NODE_GPUS} GPUs fed"
    if wanted.value is None:
        return ProjectionLine("node_readers", label, wanted.arithmetic, None, "readers")
    alone = rates.reader_volumes_per_second
    if alone is None:
        return ProjectionLine("node_readers", label, NO_READER, None, "readers")
    share = wanted.value / alone
    arithmetic = (
        f"{_text(wanted.value)} volumes/s / {_text(alone)} volumes/s = {_text(share)}, rounded up"
    )
    return ProjectionLine("node_readers", label, arithmetic, float(math.ceil(share)), "readers")


def _cores(rates: MeasuredRates, readers: ProjectionLine) -> ProjectionLine:
    label = "cores that these readers take"
    if readers.value is None:
        return ProjectionLine("node_cores", label, readers.arithmetic, None, "cores")
    cores = readers.value * rates.reader_threads
    enough = "this machine has" if cores <= rates.cores else "too many for this machine, which has"
    arithmetic = (
        f"{readers.value:,.0f} readers x {_counted(rates.reader_threads, 'thread')} = "
        f"{cores:,.0f} cores; {enough} {rates.cores:,}"
    )
    return ProjectionLine("node_cores", label, arithmetic, cores, "cores")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _text(number: float) -> str:
    """Return a number with four digits or, from a thousand on, to the unit."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"
