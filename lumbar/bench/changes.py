"""Settings to try for a run, by what bounds it; each is measured before it is advised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from lumbar.bench.loaders.loaders import LoaderSpec
from lumbar.bench.verdict import Bound
from lumbar.train.run.config import RunConfig
from lumbar.train.telemetry.cpu import usable_cores

COMPILE_SECONDS = 60.0
"""Seconds that torch may take to compile a training step; with less time left it is not begun."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting changed; ``setting`` is what a user types.

    ``least_seconds`` is the least time that measuring it takes.
    """

    setting: str
    config: RunConfig
    spec: LoaderSpec
    least_seconds: float = 0.0


def changes_for(
    bound: Bound, config: RunConfig, spec: LoaderSpec, device: torch.device, *, series: int
) -> Iterator[Change]:
    """Yield the changes that may help what bounds a real training step, the likeliest first.

    No batch is larger than ``series``, the number of them.
    """
    if bound in {"input", "host"}:
        yield from thread_changes(config, spec)
    if not config.bfloat16:
        yield _configured("bfloat16=true", config, spec, bfloat16=True)
    elif device.type == "cpu":
        yield _configured("bfloat16=false", config, spec, bfloat16=False)
    batch = 2 * config.optim.batch
    if batch <= series:
        optim = config.optim.model_copy(update={"batch": batch})
        yield _configured(f"optim.batch={batch}", config, spec, optim=optim)
    if bound in {"compute", "host"} and device.type == "cuda" and not config.compile:
        # On a CPU compiling alone takes longer than the whole benchmark.
        compiled = _configured("compile=true", config, spec, compile=True)
        yield replace(compiled, least_seconds=COMPILE_SECONDS)


def thread_changes(config: RunConfig, spec: LoaderSpec) -> Iterator[Change]:
    """Yield other numbers of the reader's threads: all cores, half of the present number."""
    cores = usable_cores()
    for threads in sorted({cores, max(1, spec.workers // 2)} - {spec.workers}, reverse=True):
        yield Change(f"--threads {threads}", config, replace(spec, workers=threads))


def _configured(setting: str, config: RunConfig, spec: LoaderSpec, **values: object) -> Change:
    return Change(f"--set {setting}", config.model_copy(update=values), spec)
