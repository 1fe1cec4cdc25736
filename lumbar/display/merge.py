"""How ``lumbar merge`` looks: a count of volumes, as for ``lumbar convert``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.terminal import progress

if TYPE_CHECKING:
    from lumbar.pipeline.events import VolumeTaken


def show_taken(events: Iterable[VolumeTaken], description: str) -> int:
    """Count the volumes that a cache takes from others."""
    n_taken = 0
    with progress() as bar:
        task = bar.add_task(description, total=None, rate="", note="volumes")
        for n_taken, _ in enumerate(events, 1):
            bar.update(task, completed=n_taken)
    return n_taken
