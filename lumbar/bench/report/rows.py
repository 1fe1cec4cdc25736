"""A report as ``bench.json``: every number by its name, with its unit and spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from lumbar.bench.measure.results import EndToEnd
from lumbar.bench.measure.rows import ResultRow, row
from lumbar.bench.measure.spread import Spread
from lumbar.bench.report.report import Alternative, BenchReport, LoaderResult

SHARE_OF_CEILING = 0.98
"""What the reader has to reach of a real training step's ceiling on a GPU."""

SAMPLER_PERCENT, MINUTES = 1.0, 2.0
"""What the sampler may cost of one core, and how long the whole benchmark may take."""

COUNTERS = {
    "cpu_percent": ("cpu_utilisation", "%", 1.0),
    "gpu_percent": ("gpu_utilisation", "%", 1.0),
    "sm_percent": ("sm_activity", "%", 1.0),
    "sm_occupancy_percent": ("sm_occupancy", "%", 1.0),
    "tensor_percent": ("tensor_activity", "%", 1.0),
    "dram_percent": ("dram_activity", "%", 1.0),
    "pcie_to_device_mb_s": ("pcie_to_device", "MB/s", 1.0),
    "pcie_from_device_mb_s": ("pcie_from_device", "MB/s", 1.0),
    "memory_used_bytes": ("device_memory", "MB", 1e-6),
    "power_watts": ("power", "W", 1.0),
    "energy_joules": ("energy_per_volume", "J", 1.0),
}
"""Counter, name of its result, unit, and the result's units in one of the counter's."""


def to_json(report: BenchReport) -> dict[str, Any]:
    """Return context and results; the spread stands beside each value as low and high."""
    return {
        "context": {**report.context, "notes": list(report.notes)},
        "results": list(_results(report)),
        "verdicts": [
            {
                "step": verdict.step,
                "bound": verdict.bound,
                "au": verdict.au,
                "stall": verdict.stall,
                "host": verdict.host,
                "text": verdict.finding,
                "advice": verdict.advice,
            }
            for verdict in report.verdicts
        ],
        "alternatives": [_alternative(one) for one in report.alternatives],
        "timeline": [asdict(sample) for sample in report.timeline],
        "marks": [asdict(mark) for mark in report.marks],
    }


def _results(report: BenchReport) -> Iterator[ResultRow]:
    for ceiling in report.ceilings:
        path = f"replayed_batch/{ceiling.name}"
        yield row(f"{path}/volumes_per_second", ceiling.volumes_per_second, "volumes/s")
        yield row(f"{path}/step", ceiling.step_ms, "ms")
        yield from _counters(path, ceiling.usage)
    voxels = report.context["voxels_per_volume"]
    on_gpu = report.context["gpu"] is not None
    for loader in report.loaders:
        yield from _loader(loader.spec.name, loader, voxels, on_gpu=on_gpu)
    for loader in report.loaders:
        if loader.best:
            yield from _loader(f"{loader.spec.kind}_best", loader, voxels, on_gpu=on_gpu)
    cost, taken = report.context["sampler_cost_percent"], report.context["seconds_taken"]
    yield row(
        "sampler/cost",
        Spread(cost, cost, cost),
        "% of a core",
        target=SAMPLER_PERCENT,
        wanted="below",
    )
    # Whoever allows more minutes asks for more repeats, and gets them.
    is_default = report.context["bench_config"]["minutes"] <= MINUTES
    limit = 60 * MINUTES if is_default else None
    yield row("whole_benchmark", Spread(taken, taken, taken), "s", target=limit, wanted="below")


def _loader(path: str, loader: LoaderResult, voxels: int, *, on_gpu: bool) -> Iterator[ResultRow]:
    alone, first = loader.alone, loader.first_batch_seconds
    yield from _speeds(f"{path}/alone", alone.volumes_per_second, voxels, loader)
    yield row(f"{path}/alone/cpu_seconds_per_volume", alone.cpu_seconds_per_volume, "s")
    yield row(f"{path}/alone/from_disk", _megabytes(alone.disk_bytes_per_second), "MB/s")
    yield row(f"{path}/first_batch", Spread.of([first]), "s")
    memory = Spread.of([loader.memory_bytes])
    yield row(f"{path}/memory", memory.times(1e-6), "MB")
    if loader.cold is not None:
        cold = loader.cold
        yield row(f"{path}/cold/first_batch", cold.first_batch_seconds, "s")
        yield row(f"{path}/cold/volumes_per_second", cold.volumes_per_second, "volumes/s")
        yield row(f"{path}/cold/from_disk", _megabytes(cold.disk_bytes_per_second), "MB/s")
    for measured in loader.end_to_end:
        yield from _end_to_end(path, loader, measured, voxels, on_gpu=on_gpu)


def _end_to_end(
    path: str, loader: LoaderResult, measured: EndToEnd, voxels: int, *, on_gpu: bool
) -> Iterator[ResultRow]:
    step = f"{path}/{measured.ceiling.name}"
    yield from _speeds(step, measured.volumes_per_second, voxels, loader)
    yield row(f"{step}/from_disk", _megabytes(measured.disk_bytes_per_second), "MB/s")
    yield row(f"{step}/step", measured.step_ms, "ms")
    for percentile, wait in measured.waits_ms.items():
        yield row(f"{step}/wait_{percentile}", wait, "ms", waits=measured.waits)
    yield row(f"{step}/data_stall", measured.stall.times(100), "%")
    yield row(f"{step}/accelerator_utilisation", measured.au.times(100), "%")
    share = measured.volumes_per_second.times(1 / measured.ceiling.volumes_per_second.value)
    # Without a GPU the step and the loader share the cores: nothing is asked of them there.
    asked = on_gpu and not measured.ceiling.simulated and loader.spec.kind == "lumbar_reader"
    target = SHARE_OF_CEILING if asked else None
    yield row(f"{step}/share_of_ceiling", share, "times", target=target)
    yield from _counters(step, measured.usage)


def _speeds(path: str, speed: Spread, voxels: int, loader: LoaderResult) -> Iterator[ResultRow]:
    yield row(f"{path}/volumes_per_second", speed, "volumes/s")
    yield row(f"{path}/mvoxels_per_second", speed.times(voxels / 1e6), "Mvoxel/s")
    each = loader.device_bytes_per_volume
    to_device = None if each is None else speed.times(each / 1e6)
    yield row(f"{path}/to_device", to_device, "MB/s")


def _counters(path: str, usage: Mapping[str, Spread]) -> Iterator[ResultRow]:
    for counter, (name, unit, factor) in COUNTERS.items():
        spread = usage.get(counter)
        yield row(f"{path}/{name}", None if spread is None else spread.times(factor), unit)


def _megabytes(bytes_per_second: Spread | None) -> Spread | None:
    return None if bytes_per_second is None else bytes_per_second.times(1e-6)


def _alternative(one: Alternative) -> dict[str, Any]:
    return {
        "setting": one.setting,
        "step": one.step,
        "volumes_per_second": asdict(one.volumes_per_second),
        "ceiling_volumes_per_second": asdict(one.ceiling_volumes_per_second),
        "gain": one.gain,
    }
