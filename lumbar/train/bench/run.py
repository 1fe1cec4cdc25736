"""`run_bench`: the same crops through every loader, alone and with a step, beside the ceiling."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from lumbar.cache.store import Cache
from lumbar.train.batch import Batch
from lumbar.train.bench.crops import DecodeSeries
from lumbar.train.bench.hardware import describe_machine
from lumbar.train.bench.loaders import (
    LoaderKind,
    LoaderSpec,
    Source,
    lacking_shared_memory,
    open_loader,
    start_fork_server,
)
from lumbar.train.bench.measure import (
    Stopwatch,
    first_batch_seconds,
    measure_alone,
    measure_ceiling,
    measure_end_to_end,
)
from lumbar.train.bench.report import BenchReport, Ceiling, LoaderResult
from lumbar.train.bench.steps import Step, model_step, simulated_step
from lumbar.train.clock import DeviceClock
from lumbar.train.config import RunConfig
from lumbar.train.plan import Plan
from lumbar.train.reader import Reader
from lumbar.train.samples import Samples
from lumbar.train.utilisation import UtilisationSampler

CPU_STEP_MS = 120.0
"""Length of the simulated step where there is no GPU to take the real one."""

MAX_STEP_SECONDS = 2.0
"""A longer training step is replayed once and not measured behind the loaders: none can matter."""

MAX_WORKERS = 8
"""Most workers that are tried unasked."""


class BenchConfig(BaseModel):
    """How the benchmark measures.

    Attributes
    ----------
    seconds, repeats
        Length and number of the windows of each measurement.
    workers
        Numbers of DataLoader workers to try; by default 0, half of the cores and all of them, at
        most `MAX_WORKERS`.
    step_ms
        Length of the simulated step; 0 for none. By default `CPU_STEP_MS` without a GPU, where
        model and loader would share the cores, and none with one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(0.5, gt=0)
    repeats: int = Field(3, ge=1)
    workers: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)
    step_ms: float | None = Field(None, ge=0)


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """What is about to be measured, and how much is behind."""

    doing: str
    done: int
    total: int


BenchEvent = BenchProgress | BenchReport


def run_bench(
    cache: Cache,
    run_config: RunConfig,
    bench_config: BenchConfig,
    *,
    device: torch.device,
    threads: int,
    dicom_decode: DecodeSeries | None,
) -> Iterator[BenchEvent]:
    """Measure every loader on a cache; the last event is the `BenchReport`.

    Nothing that was started is left running, but Python's own fork server.

    Parameters
    ----------
    threads
        DALI's threads.
    dicom_decode
        Decodes a series on the fly, in worker processes; None leaves that baseline out.

    Raises
    ------
    InputError
        If the cache holds no series of the configuration's type.
    """
    source = _source(cache, run_config, device, dicom_decode)
    specs, notes = _specs(source, bench_config, threads)
    steps = _steps(run_config, bench_config, device, source.plan.steps)
    total = len(steps) + len(specs)
    stopwatch = Stopwatch(DeviceClock(device), bench_config.seconds, bench_config.repeats)

    batch = _one_batch(source, threads)
    ceilings: list[Ceiling] = []
    for step in steps:
        yield BenchProgress(f"replayed batch, {step.label}", len(ceilings), total)
        ceilings.append(measure_ceiling(stopwatch, step, batch, longest_step=MAX_STEP_SECONDS))
    behind = _worth_measuring(steps, ceilings)
    if any(spec.forks for spec in specs):
        start_fork_server()
    loaders: list[LoaderResult] = []
    for spec in specs:
        yield BenchProgress(_label(spec), len(steps) + len(loaders), total)
        loaders.append(_measure_loader(stopwatch, source, spec, behind))
    yield BenchReport(
        context=_context(source, run_config, bench_config),
        ceilings=tuple(ceilings),
        loaders=tuple(_mark_best(loaders)),
        notes=(*notes, *_notes(source, behind, ceilings)),
    )


def _source(
    cache: Cache, config: RunConfig, device: torch.device, decode: DecodeSeries | None
) -> Source:
    """Plan over all series of the type but those that would make a short last batch."""
    rows = cache.rows_of(config.series)
    batch = min(config.optim.batch, len(rows))
    plan = Plan(
        Samples.of_series(cache, rows[: len(rows) // batch * batch]),
        config.crop,
        config.augment,
        batch=batch,
        shuffle=True,
        sampling=config.sampling,
        seed=config.seed,
    )
    return Source(cache, plan, device, torch.bfloat16 if config.bfloat16 else torch.float32, decode)


def _specs(source: Source, config: BenchConfig, threads: int) -> tuple[list[LoaderSpec], list[str]]:
    """Return the loaders to measure, and why others are left out."""
    cores = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    workers = sorted(set(config.workers or (0, cores // 2, cores)))
    wanted = [LoaderSpec("cache_dataloader", count) for count in workers]
    notes = []
    if source.decode is not None:
        wanted.insert(0, LoaderSpec("dicom_dataloader", workers[-1]))
    else:
        notes.append("DICOM on the fly was not measured: no folder of DICOM files was named.")
    wanted.append(LoaderSpec("dali_reader", threads))
    lacking = {spec: lacking_shared_memory(source, spec) for spec in wanted}
    notes += [f"{why}." for why in lacking.values() if why]
    return [spec for spec in wanted if not lacking[spec]], notes


def _steps(
    run_config: RunConfig, config: BenchConfig, device: torch.device, steps: int
) -> list[Step]:
    """Return the real training step, and the simulated one where it is wanted."""
    default = 0.0 if device.type == "cuda" else CPU_STEP_MS
    step_ms = default if config.step_ms is None else config.step_ms
    real = model_step(run_config, device, steps=steps)
    return [real, simulated_step(step_ms)] if step_ms else [real]


def _one_batch(source: Source, threads: int) -> Batch:
    """Return a batch that stays on the device after its reader is closed."""
    with Reader(
        source.cache, source.plan, device=source.device, dtype=source.dtype, threads=threads
    ) as reader:
        batch = next(reader.epoch())
        return replace(batch, image=batch.image.clone())


def _worth_measuring(
    steps: Sequence[Step], ceilings: Sequence[Ceiling]
) -> list[tuple[Step, Ceiling]]:
    """Return the steps to put behind the loaders, the shortest first.

    So no step finds more batches ready than it would leave itself.
    """
    pairs = [
        (step, ceiling)
        for step, ceiling in zip(steps, ceilings, strict=True)
        if ceiling.step_ms.value <= 1000 * MAX_STEP_SECONDS
    ]
    return sorted(pairs, key=lambda pair: pair[1].step_ms.value)


def _measure_loader(
    stopwatch: Stopwatch,
    source: Source,
    spec: LoaderSpec,
    behind: Sequence[tuple[Step, Ceiling]],
) -> LoaderResult:
    opened = time.perf_counter()
    with open_loader(source, spec) as batches, UtilisationSampler(source.device) as gpu:
        first = first_batch_seconds(opened, batches, stopwatch.clock)
        alone, cpu = measure_alone(stopwatch, batches, in_flight=spec.in_flight, workers=spec.round)
        end_to_end = [
            measure_end_to_end(stopwatch, batches, step, ceiling, gpu, workers=spec.round)
            for step, ceiling in behind
        ]
    return LoaderResult(
        name=spec.name,
        label=_label(spec),
        kind=spec.kind,
        best=False,
        first_batch_seconds=first,
        volumes_per_second=alone,
        cpu_seconds_per_volume=cpu,
        end_to_end=tuple(end_to_end),
    )


def _mark_best(loaders: Sequence[LoaderResult]) -> list[LoaderResult]:
    """Mark the fastest of the loaders that were tried with several numbers of workers."""
    tried = [loader for loader in loaders if loader.kind == "cache_dataloader"]
    best = max(tried, key=lambda loader: loader.volumes_per_second.value, default=None)
    return [replace(loader, best=loader is best) for loader in loaders]


def _label(spec: LoaderSpec) -> str:
    texts: dict[LoaderKind, str] = {
        "dicom_dataloader": f"pydicom on the fly, DataLoader, {spec.workers} workers",
        "cache_dataloader": f"cache, DataLoader, {spec.workers} workers",
        "dali_reader": f"lumbar's DALI reader, {spec.workers} threads",
    }
    return texts[spec.kind]


def _context(source: Source, run_config: RunConfig, config: BenchConfig) -> dict[str, Any]:
    crop = source.plan.crop
    return {
        **describe_machine(source.device),
        "seed": run_config.seed,
        "series": len(source.plan.samples),
        "batch": source.plan.batch,
        "box": f"{crop.slices} x {crop.height} x {crop.width}",
        "seconds": config.seconds,
        "repeats": config.repeats,
        "bench_config": config.model_dump(mode="json"),
        "run_config": run_config.model_dump(mode="json"),
    }


def _notes(
    source: Source, behind: Sequence[tuple[Step, Ceiling]], ceilings: Sequence[Ceiling]
) -> Iterator[str]:
    measured = [ceiling for _, ceiling in behind]
    for ceiling in ceilings:
        if ceiling not in measured:
            yield (
                f"One {ceiling.label} takes {ceiling.step_ms.value / 1000:.1f} s, so it was "
                "replayed once and not measured behind the loaders."
            )
        if ceiling.simulated:
            yield (
                "The simulated step computes nothing: it shows how well a loader hides behind "
                "an accelerator that takes so long, not how fast one is."
            )
    if source.device.type != "cuda":
        yield (
            "No GPU: the training step and the loaders compete for the same cores, so the step "
            "itself slows down behind a loader, and AU falls without any wait."
        )
    yield (
        "The page cache was left as it was: files that were read lately come from memory, not from "
        "the disk."
    )
