"""Notes on what limits the meaning of the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lumbar.bench.measure.results import Ceiling
from lumbar.bench.report.report import LoaderResult
from lumbar.bench.verdict import COMPUTE_BOUND

FAR_AHEAD = COMPUTE_BOUND / (1 - COMPUTE_BOUND)
"""How many times as fast as the step a loader is that leaves it compute-bound in any case: even if
each batch were made while the step waits, AU would be `COMPUTE_BOUND`."""


def notes_of(
    device: torch.device,
    ceilings: Sequence[Ceiling],
    too_long: Sequence[Ceiling],
    loaders: Sequence[LoaderResult],
) -> Iterator[str]:
    """Yield what limits the meaning of a benchmark; ``too_long`` steps were replayed alone."""
    for ceiling in too_long:
        how = "once, for want of time, which warms up too" if ceiling.first_alone else "each"
        yield (
            f"{ceiling.label[0].upper()}{ceiling.label[1:]}: {ceiling.step_ms.value / 1000:.1f} s "
            f"{how}, so it was replayed and not measured behind the loaders."
        )
        yield from _without_measuring(ceiling, loaders)
    if not loaders:
        yield "No verdict: no loader was measured, for want of time; try more --minutes."
    if any(ceiling.simulated for ceiling in ceilings):
        yield (
            "The simulated step computes nothing: it shows how well a loader hides behind "
            "an accelerator that takes so long, not how fast one is."
        )
    if device.type != "cuda":
        yield (
            "No GPU: the training step and the loaders compete for the same cores, so the step "
            "itself slows down behind a loader, and AU falls without any wait."
        )
    for loader in loaders:
        read = loader.cold and loader.cold.disk_bytes_per_second
        if read and read.value == 0:
            yield (
                f"Cold, {loader.spec.label}: nothing came from the disk. The file system keeps its "
                "pages, or serves them from elsewhere: these numbers are warm."
            )
    yield (
        "Warm numbers leave the page cache as it was: files that were read lately come from memory."
    )


def _without_measuring(ceiling: Ceiling, loaders: Sequence[LoaderResult]) -> Iterator[str]:
    """Yield what the reader's speed alone tells about a step that was not measured with it."""
    own = next((loader for loader in loaders if loader.spec.kind == "lumbar_reader"), None)
    if own is None:
        return
    speed = own.alone.volumes_per_second.value
    times = speed / ceiling.volumes_per_second.value
    gives = f"{own.spec.label} gives {speed:.3g} volumes/s, {times:.2g} times what that step takes"
    if times >= FAR_AHEAD:
        yield f"Compute-bound without measuring it: {gives}."
    else:
        yield f"No verdict on that step: {gives}, too close to say without measuring."
