"""The verdict of each step, and the changes that are measured before one is advised."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from lumbar.bench.changes import Change, changes_for, thread_changes
from lumbar.bench.loaders.loaders import LoaderInput, LoaderSpec, open_loader
from lumbar.bench.measure.repeats import measure_ceiling, measure_end_to_end
from lumbar.bench.measure.results import Ceiling, EndToEnd
from lumbar.bench.measure.steps import BenchStep, model_step
from lumbar.bench.report.report import Alternative, LoaderResult
from lumbar.bench.session import Bench, BenchProgress
from lumbar.bench.verdict import Tried, Verdict
from lumbar.train.reader.batch import Batch
from lumbar.train.reader.reader import Reader
from lumbar.train.telemetry.device_clock import DeviceClock

Behind = tuple[BenchStep, Ceiling]
"""A step that is put behind the loaders, and its ceiling."""

Judged = tuple[list[Verdict], list[Alternative]]


def judge(
    bench: Bench, reader: LoaderSpec, loaders: Sequence[LoaderResult], behind: Sequence[Behind]
) -> Generator[BenchProgress, None, Judged]:
    """Find what bounds each step behind the reader, and measure the changes that may help."""
    verdicts: list[Verdict] = []
    alternatives: list[Alternative] = []
    own = next((loader for loader in loaders if loader.spec == reader), None)
    for step, ceiling in behind:
        measured = None if own is None else own.behind(ceiling)
        if measured is None:
            continue
        verdict = _verdict(step, measured, reader)
        tried = [*_other_placements(step, measured, loaders, reader)]
        tried += yield from _try_changes(bench, reader, step, measured, verdict)
        told = tuple(Tried(one.setting, one.gain) for one in tried)
        verdicts.append(replace(verdict, tried=told))
        alternatives += tried
    return verdicts, alternatives


def one_batch(source: LoaderInput, reader: LoaderSpec) -> Batch:
    """Return a batch that stays on the device after its reader is closed."""
    with Reader(
        source.cache,
        source.plan,
        device=source.device,
        dtype=source.dtype,
        threads=reader.workers,
    ) as opened:
        batch = next(opened.epoch())
        kept = replace(batch, image=batch.image.clone())
        # The copy ends before the reader releases its memory.
        DeviceClock(source.device).synchronise()
        return kept


def _verdict(step: BenchStep, measured: EndToEnd, reader: LoaderSpec) -> Verdict:
    gpu = measured.ceiling.usage.get("gpu_percent")
    behind = measured.usage.get("gpu_percent") if reader.draw == "gpu" else None
    return Verdict(
        step=step.name,
        label=step.label,
        au=measured.au.value,
        stall=measured.stall.value,
        slower=measured.step_ms.value / measured.ceiling.step_ms.value,
        gpu_percent=None if gpu is None or step.simulated else gpu.value,
        drawing_percent=None if behind is None or step.simulated else behind.value,
    )


def _other_placements(
    step: BenchStep, measured: EndToEnd, loaders: Sequence[LoaderResult], reader: LoaderSpec
) -> Iterator[Alternative]:
    """Yield the reader's other tiers and draws, which were measured among the loaders."""
    for loader in loaders:
        other = loader.behind(measured.ceiling)
        if loader.spec.kind == reader.kind and loader.spec != reader and other is not None:
            yield _alternative(loader.spec.options_beside(reader), step, other, measured)


def _try_changes(
    bench: Bench, reader: LoaderSpec, step: BenchStep, measured: EndToEnd, verdict: Verdict
) -> Generator[BenchProgress, None, list[Alternative]]:
    """Measure the changes that may help what bounds a step."""
    config = bench.run_config
    series = len(bench.cache.rows_of(config.series_type))
    if not step.simulated:
        changes = changes_for(verdict.bound, config, reader, bench.device, series=series)
    elif verdict.bound == "compute":
        return []
    else:
        changes = thread_changes(config, reader)
    alternatives = []
    for change in changes:
        label = f"{change.setting}, {step.label}"
        if bench.in_time(label, change.least_seconds):
            yield bench.begin(label, usual=change.least_seconds == 0)
            try:
                changed = _measure_change(bench, change, step if step.simulated else None)
            except Exception as error:  # out of memory, no compiler: the change is not advised
                bench.failed(label, error)
            else:
                alternatives.append(_alternative(change.setting, step, changed, measured))
    return alternatives


def _measure_change(bench: Bench, change: Change, simulated: BenchStep | None) -> EndToEnd:
    """Measure ceiling and end to end with one setting changed; a simulated step stays the same."""
    source = bench.source(change.config)
    step = simulated or model_step(change.config, bench.device, steps=source.plan.steps)
    bench.stopwatch.sampler.mark(f"{change.setting}; {step.label}")
    ceiling = measure_ceiling(bench.stopwatch, step, one_batch(source, change.spec))
    with open_loader(source, change.spec) as batches:
        return measure_end_to_end(bench.stopwatch, batches, step, ceiling)


def _alternative(
    setting: str, step: BenchStep, changed: EndToEnd, unchanged: EndToEnd
) -> Alternative:
    speed = changed.volumes_per_second
    return Alternative(
        setting=setting,
        step=step.name,
        volumes_per_second=speed,
        ceiling_volumes_per_second=changed.ceiling.volumes_per_second,
        gain=speed.value / unchanged.volumes_per_second.value,
    )
