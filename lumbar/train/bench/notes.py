"""What has to be known to read the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lumbar.train.bench.report import Ceiling, LoaderResult


def notes_of(
    device: torch.device, ceilings: Sequence[Ceiling], loaders: Sequence[LoaderResult]
) -> Iterator[str]:
    """Yield what limits the meaning of a benchmark."""
    for ceiling in ceilings:
        if not any(loader.behind(ceiling) for loader in loaders):
            yield (
                f"One {ceiling.label} takes {ceiling.step_ms.value / 1000:.1f} s, so it was "
                "replayed and not measured behind the loaders."
            )
            yield from _too_fast_to_matter(ceiling, loaders)
        if ceiling.simulated:
            yield (
                "The simulated step computes nothing: it shows how well a loader hides behind "
                "an accelerator that takes so long, not how fast one is."
            )
    if device.type != "cuda":
        yield (
            "No GPU: the training step and the loaders compete for the same cores, so the step "
            "itself slows down behind a loader, and AU falls without any wait."
        )
    yield (
        "Warm numbers leave the page cache as it was: files that were read lately come from memory."
    )


def _too_fast_to_matter(ceiling: Ceiling, loaders: Sequence[LoaderResult]) -> Iterator[str]:
    """Yield how far the loaders are ahead of a step that none of them was put before."""
    speeds = {one.spec.label: one.alone.volumes_per_second.value for one in loaders}
    for label in [one.spec.label for one in loaders if one.spec.kind == "lumbar_reader"][:1]:
        times = speeds[label] / ceiling.volumes_per_second.value
        yield (
            f"Compute-bound without measuring it: {label} gives {speeds[label]:.0f} volumes/s, "
            f"{times:.0f} times what that step takes."
        )
