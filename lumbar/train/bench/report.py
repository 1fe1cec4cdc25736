"""What a benchmark came to: numbers with their spread, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the repeats, and the least and the greatest of them."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise the repeats."""
        return cls(float(np.median(values)), float(min(values)), float(max(values)))

    def text(self, digits: int = 1) -> str:
        """Return the median with its spread."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A step on one batch that lies on the device already: no loader can be faster than this."""

    name: str
    label: str
    simulated: bool
    step_ms: Spread
    volumes_per_second: Spread


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """A loader and a step together; ``stall`` and ``au`` are shares of the wall time.

    ``gpu_percent`` is None where nothing was measured.
    """

    ceiling: Ceiling
    volumes_per_second: Spread
    wait_ms_p50: Spread
    wait_ms_p95: Spread
    wait_ms_p99: Spread
    stall: Spread
    au: Spread
    gpu_percent: Spread | None


@dataclass(frozen=True, slots=True)
class LoaderResult:
    """Everything measured of one loader.

    ``best`` marks the fastest number of workers among loaders of one kind. ``first_batch_seconds``
    is from opening the loader to its first batch, measured once.
    """

    name: str
    label: str
    kind: str
    best: bool
    first_batch_seconds: float
    volumes_per_second: Spread
    cpu_seconds_per_volume: Spread
    end_to_end: tuple[EndToEnd, ...]


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A finished benchmark."""

    context: dict[str, Any]
    ceilings: tuple[Ceiling, ...]
    loaders: tuple[LoaderResult, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return context and results; the spread stands beside each value as low and high."""
        return {
            "context": {**self.context, "notes": list(self.notes)},
            "results": list(self._results()),
        }

    def to_markdown(self) -> str:
        """Return one table for each step, the machine and the notes."""
        tables = [part for ceiling in self.ceilings for part in self._table(ceiling)]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([*self._machine(), "", *tables, *notes]) + "\n"

    def _results(self) -> Iterator[dict[str, Any]]:
        for ceiling in self.ceilings:
            path = f"replayed_batch/{ceiling.name}"
            yield _result(f"{path}/volumes_per_second", ceiling.volumes_per_second, "volumes/s")
            yield _result(f"{path}/step", ceiling.step_ms, "ms")
        for loader in self.loaders:
            yield from _loader_results(loader.name, loader)
        for loader in self.loaders:
            if loader.best:
                yield from _loader_results(f"{loader.kind}_best", loader)

    def _machine(self) -> list[str]:
        context = self.context
        gpu = context["gpu"] and f"{context['gpu']}, driver {context['gpu_driver']}"
        versions = ", ".join(f"{name} {value}" for name, value in context["versions"].items())
        return [
            f"{context['cpu']}, {context['cores']} cores, {context['ram_gib']} GiB; "
            f"GPU: {gpu or 'none'}; {versions}; {context['date']}, seed {context['seed']}",
            "",
            f"{context['series']} series, batches of {context['batch']} x {context['box']}, "
            f"{context['repeats']} repeats of {context['seconds']:g} s: median (least-greatest).",
        ]

    def _table(self, ceiling: Ceiling) -> Iterator[str]:
        yield f"**{_label(ceiling)}**"
        yield ""
        yield (
            "| loader | alone, volumes/s | end to end, volumes/s | wait p50 / p95 / p99, ms "
            "| stall, % | AU, % | GPU, % | first batch, s | CPU s a volume |"
        )
        yield "|---|---|---|---|---|---|---|---|---|"
        for loader in self.loaders:
            yield _row(loader, next((e for e in loader.end_to_end if e.ceiling is ceiling), None))
        yield (
            f"| replayed batch: the ceiling | | {ceiling.volumes_per_second.text()} | "
            f"step {ceiling.step_ms.text()} | | | | | |"
        )
        yield ""


def _label(ceiling: Ceiling) -> str:
    return f"{ceiling.label[0].upper()}{ceiling.label[1:]}"


def _row(loader: LoaderResult, end_to_end: EndToEnd | None) -> str:
    cells = (
        loader.label + (", best" if loader.best else ""),
        loader.volumes_per_second.text(),
        *(_cells(end_to_end) if end_to_end else [NOT_MEASURED] * 5),
        f"{loader.first_batch_seconds:.2f}",
        loader.cpu_seconds_per_volume.text(3),
    )
    return f"| {' | '.join(cells)} |"


def _cells(end_to_end: EndToEnd) -> tuple[str, ...]:
    waits = (end_to_end.wait_ms_p50, end_to_end.wait_ms_p95, end_to_end.wait_ms_p99)
    gpu = end_to_end.gpu_percent
    return (
        end_to_end.volumes_per_second.text(),
        " / ".join(f"{wait.value:.1f}" for wait in waits),
        _percent(end_to_end.stall).text(),
        _percent(end_to_end.au).text(),
        gpu.text(0) if gpu else NOT_MEASURED,
    )


def _loader_results(path: str, loader: LoaderResult) -> Iterator[dict[str, Any]]:
    first = loader.first_batch_seconds
    yield _result(f"{path}/alone/volumes_per_second", loader.volumes_per_second, "volumes/s")
    yield _result(f"{path}/alone/cpu_seconds_per_volume", loader.cpu_seconds_per_volume, "s")
    yield _result(f"{path}/first_batch", Spread(first, first, first), "s")
    for measured in loader.end_to_end:
        step = f"{path}/{measured.ceiling.name}"
        yield _result(f"{step}/volumes_per_second", measured.volumes_per_second, "volumes/s")
        yield _result(f"{step}/wait_p50", measured.wait_ms_p50, "ms")
        yield _result(f"{step}/wait_p95", measured.wait_ms_p95, "ms")
        yield _result(f"{step}/wait_p99", measured.wait_ms_p99, "ms")
        yield _result(f"{step}/data_stall", _percent(measured.stall), "%")
        yield _result(f"{step}/accelerator_utilisation", _percent(measured.au), "%")
        yield _result(f"{step}/gpu_utilisation", measured.gpu_percent, "%")


def _percent(share: Spread) -> Spread:
    return Spread(100 * share.value, 100 * share.low, 100 * share.high)


def _result(name: str, spread: Spread | None, unit: str) -> dict[str, Any]:
    """Return one result; no target is named here, so none is met or missed."""
    return {
        "name": name,
        "value": spread and spread.value,
        "unit": unit,
        "target": None,
        "met": None,
        "low": spread and spread.low,
        "high": spread and spread.high,
    }
