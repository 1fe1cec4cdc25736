"""`run_bench`: the same crops through every loader, alone and with a step, beside the ceiling."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lumbar.bench.judge import Behind, judge, one_batch
from lumbar.bench.loaders.contenders import choose_contenders
from lumbar.bench.loaders.loaders import LoaderInput, LoaderSpec, open_loader, start_fork_server
from lumbar.bench.loaders.opencv_crops import DecodeSeries
from lumbar.bench.loaders.transfer import bytes_to_device
from lumbar.bench.measure.cold import measure_cold, reads_files
from lumbar.bench.measure.repeats import (
    Stopwatch,
    first_batch_seconds,
    measure_alone,
    measure_ceiling,
    measure_end_to_end,
)
from lumbar.bench.measure.results import Ceiling, Cold
from lumbar.bench.measure.steps import BenchStep, model_step, simulated_step
from lumbar.bench.report.notes import notes_of
from lumbar.bench.report.report import BenchReport, LoaderResult
from lumbar.bench.session import Bench, BenchConfig, BenchEvent, BenchProgress
from lumbar.cache.store import Cache
from lumbar.train.reader.batch import Batch
from lumbar.train.reader.placement import choose_placement
from lumbar.train.reader.thread_switching import quick_thread_switches
from lumbar.train.run.allocator import let_segments_grow
from lumbar.train.run.config import RunConfig
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.hardware import describe_machine
from lumbar.train.telemetry.process_tree import memory_of_tree
from lumbar.train.telemetry.sampler import UtilisationSampler

CPU_STEP_MS = 120.0
"""Length of the simulated step where there is no GPU to take the real one."""

MAX_STEP_SECONDS = 2.0
"""A longer training step is replayed once and not measured behind the loaders: none can matter."""

LONG_STEP_SHARE = 0.5
"""Most of the time that is left for replaying such a step: the rest is for the loaders."""


def run_bench(
    cache: Cache,
    run_config: RunConfig,
    bench_config: BenchConfig,
    *,
    device: torch.device,
    threads: int,
    dicom_decode: DecodeSeries | None,
    started: float | None = None,
) -> Iterator[BenchEvent]:
    """Measure every loader on a cache; the last event is the `BenchReport`.

    Everything that it starts ends with it, except Python's own fork server.

    Parameters
    ----------
    threads
        The reader's threads.
    dicom_decode
        Decodes a series on the fly, in worker processes; None leaves that baseline out.
    started
        When its minutes began, by `time.perf_counter`; by default now.

    Raises
    ------
    InputError
        If the cache holds no series of the configuration's type.
    """
    started = time.perf_counter() if started is None else started
    # Memory and threads as in a training run.
    let_segments_grow(device)
    with quick_thread_switches(), UtilisationSampler(device) as sampler:
        bench = Bench(
            cache=cache,
            run_config=run_config,
            config=bench_config,
            device=device,
            decode=dicom_decode,
            stopwatch=Stopwatch(
                DeviceClock(device), sampler, bench_config.seconds, bench_config.repeats
            ),
            deadline=started + 60 * bench_config.minutes,
            notes=[],
        )
        report = yield from _measure(bench, threads)
        context = {
            "sampler_cost_percent": 100 * sampler.cost(),
            "seconds_taken": time.perf_counter() - started,
        }
    yield replace(
        report,
        context=report.context | context,
        timeline=sampler.timeline(),
        marks=sampler.marks(),
    )


def _measure(bench: Bench, threads: int) -> Generator[BenchProgress, None, BenchReport]:
    """Measure all that there is time for, the most informative first."""
    source = bench.source()
    plan = source.plan
    placement = choose_placement(
        bench.cache,
        plan.samples.rows,
        bench.device,
        tier=bench.config.tier,
        draw=bench.config.draw,
        threads=threads,
        augment=plan.augment,
    )
    bench.notes.append(f"{placement.why[0].upper()}{placement.why[1:]}.")
    reader = LoaderSpec("lumbar_reader", threads, placement.tier, placement.draw)
    contenders = choose_contenders(source, reader, bench.config.workers)
    bench.notes += contenders.left_out
    steps = _steps(bench, plan.steps)
    bench.total = len(steps) + len(contenders.specs)
    if any(spec.forks for spec in contenders.specs):
        start_fork_server()

    # Before all warm windows: the system keeps the pages that they map into memory.
    colds = (yield from _measure_cold(bench, contenders.specs)) if bench.config.cold else {}
    ceilings = yield from _replay(bench, steps, one_batch(source, reader))
    behind = _worth_measuring(steps, ceilings)
    too_long = [one for one in ceilings if all(one is not ceiling for _, ceiling in behind)]
    loaders = yield from _measure_loaders(bench, source, contenders.specs, behind, colds)
    verdicts, alternatives = yield from judge(bench, reader, loaders, behind)
    return BenchReport(
        context=_context(bench, source),
        ceilings=tuple(ceilings),
        loaders=tuple(_mark_best(loaders)),
        alternatives=tuple(alternatives),
        verdicts=tuple(verdicts),
        timeline=(),
        marks=(),
        notes=(*bench.notes, *notes_of(bench.device, ceilings, too_long, loaders)),
    )


def _measure_cold(
    bench: Bench, specs: Sequence[LoaderSpec]
) -> Generator[BenchProgress, None, dict[LoaderSpec, Cold]]:
    """Measure the loaders that read the cache's files, with an empty page cache."""
    colds = {}
    for spec in specs:
        if reads_files(spec) and bench.in_time(f"cold: {spec.label}"):
            yield bench.begin(f"cold: {spec.label}")
            colds[spec] = measure_cold(
                bench.fresh_source,
                spec,
                seconds=bench.config.seconds,
                repeats=bench.config.repeats,
            )
    return colds


def _replay(
    bench: Bench, steps: Sequence[BenchStep], batch: Batch
) -> Generator[BenchProgress, None, list[Ceiling]]:
    ceilings = []
    for step in steps:
        label = f"replayed batch, {step.label}"
        yield bench.begin(label, usual=False)
        now = time.perf_counter()
        ceilings.append(
            measure_ceiling(
                bench.stopwatch,
                step,
                batch,
                longest_step=MAX_STEP_SECONDS,
                until=now + LONG_STEP_SHARE * (bench.deadline - now),
            )
        )
    return ceilings


def _measure_loaders(
    bench: Bench,
    source: LoaderInput,
    specs: Sequence[LoaderSpec],
    behind: Sequence[Behind],
    colds: Mapping[LoaderSpec, Cold],
) -> Generator[BenchProgress, None, list[LoaderResult]]:
    results = []
    least = bench.config.seconds * bench.config.repeats * (1 + len(behind))
    for spec in specs:
        if bench.in_time(spec.label, least):
            yield bench.begin(spec.label)
            results.append(_measure_loader(bench, source, spec, behind, colds.get(spec)))
    return results


def _measure_loader(
    bench: Bench,
    source: LoaderInput,
    spec: LoaderSpec,
    behind: Sequence[Behind],
    cold: Cold | None,
) -> LoaderResult:
    stopwatch = bench.stopwatch
    opened = time.perf_counter()
    with open_loader(source, spec) as batches:
        first = first_batch_seconds(opened, batches, stopwatch.clock)
        alone = measure_alone(stopwatch, batches, in_flight=spec.in_flight, workers=spec.round)
        end_to_end = []
        for step, ceiling in behind:
            one_step = len(behind) == 1
            stopwatch.sampler.mark(spec.label if one_step else f"{spec.label}; {step.label}")
            measured = measure_end_to_end(stopwatch, batches, step, ceiling, workers=spec.round)
            end_to_end.append(measured)
        memory = memory_of_tree()
    return LoaderResult(
        spec=spec,
        best=False,
        first_batch_seconds=first,
        alone=alone,
        memory_bytes=memory,
        device_bytes_per_volume=bytes_to_device(source, spec),
        end_to_end=tuple(end_to_end),
        cold=cold,
    )


def _steps(bench: Bench, steps: int) -> list[BenchStep]:
    """Return the real training step, and the simulated one where it is wanted."""
    default = 0.0 if bench.device.type == "cuda" else CPU_STEP_MS
    step_ms = default if bench.config.step_ms is None else bench.config.step_ms
    real = model_step(bench.run_config, bench.device, steps=steps)
    return [real, simulated_step(step_ms)] if step_ms else [real]


def _worth_measuring(steps: Sequence[BenchStep], ceilings: Sequence[Ceiling]) -> list[Behind]:
    """Return the steps to put behind the loaders, the shortest first.

    In this order no step profits from batches that a longer step before it left ready.
    """
    pairs = [
        (step, ceiling)
        for step, ceiling in zip(steps, ceilings, strict=True)
        if ceiling.step_ms.value <= 1000 * MAX_STEP_SECONDS
    ]
    return sorted(pairs, key=lambda pair: pair[1].step_ms.value)


def _mark_best(loaders: Sequence[LoaderResult]) -> list[LoaderResult]:
    """Mark the fastest of the DataLoaders that were tried with several numbers of workers."""
    tried = [loader for loader in loaders if loader.spec.kind == "cache_dataloader"]
    best = max(tried, key=lambda loader: loader.alone.volumes_per_second.value, default=None)
    return [replace(loader, best=loader is best) for loader in loaders]


def _context(bench: Bench, source: LoaderInput) -> dict[str, Any]:
    plan, config, slices = source.plan, bench.config, source.slices
    crop = plan.crop
    return {
        **describe_machine(bench.device),
        "seed": bench.run_config.seed,
        "series_type": str(bench.run_config.series_type),
        "series": len(plan.samples),
        "batch": plan.batch,
        "box": f"{slices} x {crop.height} x {crop.width}",
        "voxels_per_volume": slices * crop.height * crop.width,
        "seconds": config.seconds,
        "repeats": config.repeats,
        "bench_config": config.model_dump(mode="json"),
        "run_config": bench.run_config.model_dump(mode="json"),
    }
