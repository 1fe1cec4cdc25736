"""The results of each kind of measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lumbar.bench.measure.spread import Spread


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A step on one batch that lies on the device already: no loader can be faster than this.

    ``first_alone`` marks a long step that was taken once, so its warm-up is included.
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

    ``waits`` is the number of waits that the percentiles are of. ``usage`` has the counters that
    were measured, by their names.
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
    def waits_ms(self) -> dict[str, Spread]:
        """The waits in milliseconds, by percentile."""
        return {"p50": self.wait_ms_p50, "p95": self.wait_ms_p95, "p99": self.wait_ms_p99}

    @property
    def share_of_ceiling(self) -> float:
        """Volumes/s over those of the replayed batch."""
        return self.volumes_per_second.value / self.ceiling.volumes_per_second.value


@dataclass(frozen=True, slots=True)
class Alone:
    """A loader without a step."""

    volumes_per_second: Spread
    cpu_seconds_per_volume: Spread
    disk_bytes_per_second: Spread | None


@dataclass(frozen=True, slots=True)
class Cold:
    """A loader whose files were dropped from the page cache before each repeat."""

    first_batch_seconds: Spread
    volumes_per_second: Spread
    disk_bytes_per_second: Spread | None
