"""Output of ``lumbar report``: a progress bar, and the size of the page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.terminal import progress, say, size_text

if TYPE_CHECKING:
    from lumbar.inspect.report.write import PageWritten, StripDrawn


def show_report(events: Iterable[StripDrawn | PageWritten]) -> None:
    """Show the progress of writing a report."""
    from lumbar.inspect.report.write import PageWritten, StripDrawn

    with progress() as bar:
        task = bar.add_task("report", total=None, rate="", note="")
        for event in events:
            match event:
                case StripDrawn(n_done, n_series):
                    bar.update(task, completed=n_done, total=n_series)
                case PageWritten(n_series, nbytes):
                    written = f"{n_series:,} series, {size_text(nbytes)}"
    say(written)
