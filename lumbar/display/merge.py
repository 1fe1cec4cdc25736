"""How ``lumbar merge`` and ``lumbar convert`` look: a count of volumes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.terminal import progress

if TYPE_CHECKING:
    from lumbar.pipeline.events import VolumeTaken


def show_taken(events: Iterable[VolumeTaken], description: str) -> int:
    """Show and return the number of volumes taken from other caches."""
    n_taken = 0
    with progress() as bar:
        task = bar.add_task(description, total=None, rate="", note="volumes")
        for n_taken, _ in enumerate(events, 1):
            bar.update(task, completed=n_taken)
    return n_taken
