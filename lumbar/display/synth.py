"""How ``lumbar synth`` looks: a bar of studies, with files and bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.terminal import progress, size_text

if TYPE_CHECKING:
    from lumbar.synth.dataset import StudyWritten


def show_synth(events: Iterable[StudyWritten], total: int) -> None:
    """Show the progress of a generated data set."""
    n_files = n_bytes = 0
    with progress() as bar:
        task = bar.add_task("synth", total=total, rate="", note="")
        for event in events:
            n_files += event.n_files
            n_bytes += event.nbytes
            bar.update(task, advance=1, note=f"{n_files:,} files, {size_text(n_bytes)}")
