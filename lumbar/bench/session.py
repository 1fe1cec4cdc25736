"""The state of a running benchmark: configuration, data, stopwatch, progress."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from lumbar.bench.loaders.loaders import LoaderInput
from lumbar.bench.loaders.opencv_crops import DecodeSeries
from lumbar.bench.measure.repeats import Stopwatch
from lumbar.bench.report.report import BenchReport
from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.run.config import RunConfig

_log = logging.getLogger(__name__)


class BenchConfig(BaseModel):
    """How the benchmark measures.

    Attributes
    ----------
    seconds, repeats
        Length and number of the windows of each measurement.
    workers
        Numbers of DataLoader workers to try; by default 0, half of the cores and all of them, at
        most eight.
    step_ms
        Length of the simulated step; 0 for none. By default 120 without a GPU, where
        model and loader would share the cores, and none with one.
    tier, draw
        Where the verdict's reader has its volumes and renders crops; the others are measured too.
    cold
        Measure the reader and the DataLoader with an empty page cache too.
    minutes
        What would not end within them is left out and named in a note. They count from the start of
        the command, so the generation of studies is included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float = Field(0.5, gt=0)
    repeats: int = Field(3, ge=1)
    workers: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)
    step_ms: float | None = Field(None, ge=0)
    tier: Tier = "auto"
    draw: Draw = "auto"
    cold: bool = False
    minutes: float = Field(2.0, gt=0)


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """What is measured next, and how many of all measurements are done."""

    doing: str
    done: int
    total: int


BenchEvent = BenchProgress | BenchReport


@dataclass(slots=True)
class Bench:
    """A running benchmark: what it measures, with what, its notes and its progress."""

    cache: Cache
    run_config: RunConfig
    config: BenchConfig
    device: torch.device
    decode: DecodeSeries | None
    stopwatch: Stopwatch
    deadline: float
    notes: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0
    began: float | None = None
    longest: float = 0.0

    def source(self, config: RunConfig | None = None) -> LoaderInput:
        """Return the cache with the plan of a configuration, by default the run's own."""
        return make_source(self.cache, config or self.run_config, self.device, self.decode)

    def fresh_source(self) -> LoaderInput:
        """Return the same with a newly opened cache."""
        return make_source(Cache(self.cache.root), self.run_config, self.device, self.decode)

    def begin(self, doing: str, *, usual: bool = True) -> BenchProgress:
        """Return the progress; what is not ``usual`` does not count as the longest so far."""
        now = time.perf_counter()
        if self.began is not None:
            self.longest = max(self.longest, now - self.began)
        self.began = now if usual else None
        self.done += 1
        self.total = max(self.total, self.done)
        return BenchProgress(doing, self.done - 1, self.total)

    def in_time(self, doing: str, least_seconds: float = 0.0) -> bool:
        """Return whether there is time for the longest measurement so far; if not, add a note."""
        if time.perf_counter() + max(self.longest, least_seconds) < self.deadline:
            return True
        self.notes.append(f"Not measured, the time was over (--minutes): {doing}.")
        return False

    def failed(self, doing: str, error: Exception) -> None:
        """Add a note on a failure; its cause goes to the log, because it may contain paths."""
        _log.info("%s failed", doing, exc_info=error)
        self.notes.append(
            f"Not measured, it failed with {type(error).__name__} (-v says more): {doing}."
        )


def check_samples(config: RunConfig) -> None:
    """Raise `InputError` where a configuration's samples are no whole series."""
    if config.sample != "series":
        raise InputError(
            what="what a sample is",
            where="the run's configuration",
            got=config.sample,
            expected="whole series, which all loaders of the benchmark read",
            cure="leave `discs` out, and name a series type",
        )


def make_source(
    cache: Cache, config: RunConfig, device: torch.device, decode: DecodeSeries | None
) -> LoaderInput:
    """Plan over all series of the type but those that would make a short last batch.

    Raises what `check_samples` raises, and `InputError` where the cache has no series of the type.
    """
    check_samples(config)
    rows = cache.rows_of(config.series_type)
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
    return LoaderInput(
        cache, plan, device, torch.bfloat16 if config.bfloat16 else torch.float32, decode
    )
