"""What a benchmark came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lumbar.train.bench.loaders import LoaderSpec
from lumbar.train.bench.projection import ProjectionLine
from lumbar.train.bench.spread import Spread
from lumbar.train.bench.verdict import Verdict
from lumbar.train.utilisation import Mark, UsageSample


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A step on one batch that lies on the device already: no loader can be faster than this.

    ``first_alone`` is a long step's that was taken once, with whatever its first time takes longer.
    """

    name: str
    label: str
    simulated: bool
    step_ms: Spread
    volumes_per_second: Spread
    usage: Mapping[str, Spread]
    first_alone: bool = False


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """A loader and a step together; ``stall`` and ``au`` are shares of the wall time.

    Percentiles are of so many ``waits``.
    ``usage`` has what the machine's counters said, by their names: those that were measured.
    """

    ceiling: Ceiling
    volumes_per_second: Spread
    step_ms: Spread
    wait_ms_p50: Spread
    wait_ms_p95: Spread
    wait_ms_p99: Spread
    waits: int
    stall: Spread
    au: Spread
    disk_bytes_per_second: Spread | None
    usage: Mapping[str, Spread]

    @property
    def share_of_ceiling(self) -> float:
        """Volumes/s over those of the replayed batch."""
        return self.volumes_per_second.value / self.ceiling.volumes_per_second.value


@dataclass(frozen=True, slots=True)
class Alone:
    """A loader whose batches nobody uses."""

    volumes_per_second: Spread
    cpu_seconds_per_volume: Spread
    disk_bytes_per_second: Spread | None


@dataclass(frozen=True, slots=True)
class Cold:
    """A loader whose files were dropped from the page cache before each repeat."""

    first_batch_seconds: Spread
    volumes_per_second: Spread
    disk_bytes_per_second: Spread | None


@dataclass(frozen=True, slots=True)
class LoaderResult:
    """Everything measured of one loader.

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

    ``gain`` is how many times the volumes/s of the unchanged setting it reaches.
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
    projection: tuple[ProjectionLine, ...]
    timeline: tuple[UsageSample, ...]
    marks: tuple[Mark, ...]
    notes: tuple[str, ...]
