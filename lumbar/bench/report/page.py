"""A report as ``bench.md``: a page to paste, with the tables of the terminal and more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lumbar.bench.measure.results import Ceiling
from lumbar.bench.measure.spread import Spread
from lumbar.bench.report.report import BenchReport, LoaderResult
from lumbar.bench.report.rows import COUNTERS

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header and rows of text; None is shown as not measured."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str | None, ...]]

    def lines(self) -> list[str]:
        """Return header and rows as lines of Markdown, without the title."""
        cells = [self.header, ("---",) * len(self.header), *self.rows]
        return [f"| {' | '.join(NOT_MEASURED if c is None else c for c in row)} |" for row in cells]


def to_markdown(report: BenchReport) -> str:
    """Return verdicts, machine, tables and notes as Markdown."""
    lines = []
    for verdict in report.verdicts:
        lines += [f"**{_capital(verdict.label)}.** {verdict.finding} {verdict.advice}", ""]
    lines += [*machine(report), ""]
    for table in tables(report):
        lines += [f"**{table.title}**", "", *table.lines(), ""]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines) + "\n"


def machine(report: BenchReport) -> list[str]:
    """Return lines on machine, data and settings."""
    context = report.context
    gpu = context["gpu"] and f"{context['gpu']}, driver {context['gpu_driver']}"
    versions = ", ".join(f"{name} {value}" for name, value in context["versions"].items())
    return [
        f"{context['cpu']}, {context['cores']} cores, {context['ram_gib']} GiB; "
        f"GPU: {gpu or 'none'}; {versions}; {context['date']}, seed {context['seed']}",
        "",
        f"{context['series']} series, batches of {context['batch']} x {context['box']}, "
        f"{context['repeats']} repeats of {context['seconds']:g} s: median (least-greatest). "
        f"The sampler took {context['sampler_cost_percent']:.2f} % of a core, the whole "
        f"{context['seconds_taken']:.0f} s.",
    ]


def tables(report: BenchReport) -> Iterator[Table]:
    """Yield the loaders alone, each step behind them, what was tried, counters, cold."""
    yield _alone(report)
    for ceiling in report.ceilings:
        if any(loader.behind(ceiling) for loader in report.loaders):
            yield _behind(report, ceiling)
    if report.alternatives:
        yield _alternatives(report)
    if report.context["gpu"] is not None:
        yield from _counters(report)
    if any(loader.cold for loader in report.loaders):
        yield _cold(report)


def _alone(report: BenchReport) -> Table:
    header = (
        "loader alone", "volumes/s", "Mvoxel/s", "from disk, MB/s", "to device, MB/s",
        "CPU ms per volume", "first batch, s", "memory, MB",
    )  # fmt: skip
    rows = []
    for loader in report.loaders:
        alone = loader.alone
        speed = alone.volumes_per_second
        voxels, to_device = report.context["voxels_per_volume"], loader.device_bytes_per_volume
        rows.append(
            (
                _name(loader),
                speed.text(),
                f"{speed.value * voxels / 1e6:,.0f}",
                _megabytes(alone.disk_bytes_per_second),
                None if to_device is None else f"{speed.value * to_device / 1e6:,.0f}",
                alone.cpu_seconds_per_volume.times(1000).text(),
                f"{loader.first_batch_seconds:.2f}",
                f"{loader.memory_bytes / 1e6:,.0f}",
            )
        )
    return Table("The loaders alone", header, rows)


def _behind(report: BenchReport, ceiling: Ceiling) -> Table:
    header = (
        "loader", "end to end, volumes/s", "of the ceiling", "step, ms", "wait p50 / p95 / p99, ms",
        "stall, %", "AU, %", "CPU, %", "GPU, %",
    )  # fmt: skip
    rows: list[tuple[str | None, ...]] = []
    for loader in report.loaders:
        measured = loader.behind(ceiling)
        if measured is not None:
            waits = (measured.wait_ms_p50, measured.wait_ms_p95, measured.wait_ms_p99)
            rows.append(
                (
                    _name(loader),
                    measured.volumes_per_second.text(),
                    f"{measured.share_of_ceiling:.3f}",
                    measured.step_ms.text(),
                    " / ".join(f"{wait.value:.1f}" for wait in waits),
                    measured.stall.times(100).text(),
                    measured.au.times(100).text(),
                    _percent(measured.usage.get("cpu_percent")),
                    _percent(measured.usage.get("gpu_percent")),
                )
            )
    rows.append(
        (
            "replayed batch: the ceiling",
            ceiling.volumes_per_second.text(),
            "1",
            ceiling.step_ms.text(),
            "",
            "",
            "",
            _percent(ceiling.usage.get("cpu_percent")),
            _percent(ceiling.usage.get("gpu_percent")),
        )
    )
    return Table(_capital(ceiling.label), header, rows)


def _alternatives(report: BenchReport) -> Table:
    labels = {ceiling.name: ceiling.label for ceiling in report.ceilings}
    return Table(
        "What was tried",
        ("change", "step", "end to end, volumes/s", "its ceiling, volumes/s", "times as fast"),
        [
            (
                one.setting,
                labels[one.step],
                one.volumes_per_second.text(),
                one.ceiling_volumes_per_second.text(),
                f"{one.gain:.2f}",
            )
            for one in report.alternatives
        ],
    )


def _counters(report: BenchReport) -> Iterator[Table]:
    """Yield the GPU's counters, one table per step, with the columns that the driver gives."""
    for ceiling in report.ceilings:
        rows = [("replayed batch: the ceiling", ceiling.usage)]
        rows += [
            (_name(loader), measured.usage)
            for loader in report.loaders
            if (measured := loader.behind(ceiling)) is not None
        ]
        kept = [name for name in COUNTERS if any(name in usage for _, usage in rows)]
        header = tuple(f"{COUNTERS[n][0].replace('_', ' ')}, {COUNTERS[n][1]}" for n in kept)
        yield Table(
            f"Counters, {ceiling.label}",
            ("loader", *header),
            [(label, *(_counter(n, usage.get(n)) for n in kept)) for label, usage in rows],
        )


def _cold(report: BenchReport) -> Table:
    rows = [
        (
            loader.spec.label,
            loader.cold.volumes_per_second.text(),
            loader.alone.volumes_per_second.text(),
            _megabytes(loader.cold.disk_bytes_per_second),
            loader.cold.first_batch_seconds.text(2),
        )
        for loader in report.loaders
        if loader.cold is not None
    ]
    header = ("loader alone", "cold, volumes/s", "warm, volumes/s", "from disk, MB/s",
              "first batch, s")  # fmt: skip
    return Table("With an empty page cache", header, list(rows))


def _name(loader: LoaderResult) -> str:
    return loader.spec.label + (", best" if loader.best else "")


def _counter(name: str, spread: Spread | None) -> str | None:
    return None if spread is None else spread.times(COUNTERS[name][2]).text()


def _percent(spread: Spread | None) -> str | None:
    return None if spread is None else f"{spread.value:.0f}"


def _megabytes(bytes_per_second: Spread | None) -> str | None:
    return None if bytes_per_second is None else f"{bytes_per_second.value / 1e6:,.1f}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
