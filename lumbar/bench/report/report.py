"""The result of a whole benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lumbar.bench.loaders.loaders import LoaderSpec
from lumbar.bench.measure.results import Alone, Ceiling, Cold, EndToEnd
from lumbar.bench.measure.spread import Spread
from lumbar.bench.verdict import Verdict
from lumbar.train.telemetry.sampler import Mark, UsageSample


@dataclass(frozen=True, slots=True)
class LoaderResult:
    """All measurements of one loader.

    ``best`` marks the fastest number of workers among loaders of one kind. ``first_batch_seconds``
    is from opening the loader to its first batch, measured once. ``memory_bytes`` is this process
    and its workers after the last window. ``device_bytes_per_volume`` goes from host to device;
    None where there is no device but the host.
    """

    spec: LoaderSpec
    best: bool
    first_batch_seconds: float
    alone: Alone
    memory_bytes: int
    device_bytes_per_volume: int | None
    end_to_end: tuple[EndToEnd, ...]
    cold: Cold | None = None

    def behind(self, ceiling: Ceiling) -> EndToEnd | None:
        """Return what was measured with a step, or None."""
        return next((e for e in self.end_to_end if e.ceiling is ceiling), None)


@dataclass(frozen=True, slots=True)
class Alternative:
    """The reader and the step with one setting changed, measured end to end.

    ``gain`` is its volumes/s over those with the setting unchanged.
    """

    setting: str
    step: str
    volumes_per_second: Spread
    ceiling_volumes_per_second: Spread
    gain: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A finished benchmark."""

    context: dict[str, Any]
    ceilings: tuple[Ceiling, ...]
    loaders: tuple[LoaderResult, ...]
    alternatives: tuple[Alternative, ...]
    verdicts: tuple[Verdict, ...]
    timeline: tuple[UsageSample, ...]
    marks: tuple[Mark, ...]
    notes: tuple[str, ...]
