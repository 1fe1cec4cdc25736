"""What has to be known to read the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lumbar.train.bench.report import Ceiling


def notes_of(
    device: torch.device, ceilings: Sequence[Ceiling], behind: Sequence[Ceiling]
) -> Iterator[str]:
    """Yield what limits the meaning of a benchmark; ``behind`` were measured behind loaders."""
    for ceiling in ceilings:
        if ceiling not in behind:
            yield (
                f"One {ceiling.label} takes {ceiling.step_ms.value / 1000:.1f} s, so it was "
                "replayed once and not measured behind the loaders."
            )
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
