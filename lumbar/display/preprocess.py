"""How ``lumbar preprocess`` looks: progress, the counts, and what each rejection means."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from lumbar.display.progress_lines import LEAST_S, ProgressLines
from lumbar.display.terminal import console, progress, say, size_text

if TYPE_CHECKING:
    from lumbar.pipeline.events import Event, Finished


def show_preprocess(events: Iterable[Event]) -> Finished:
    """Show a preprocess run, as a bar or without a terminal as plain lines, then its counts."""
    finished = _draw(events) if console.is_terminal else _tell(events)
    _show_counts(finished)
    return finished


def _draw(events: Iterable[Event]) -> Finished:
    """Show progress as a bar."""
    from lumbar.pipeline import events as e

    finished: e.Finished | None = None
    n_bytes = 0
    with progress() as bar:
        task = bar.add_task("scan", total=None, rate="", note="")
        for event in events:
            match event:
                case e.Scanned(n_files):
                    bar.update(task, completed=n_files, note="files found")
                case e.HeadersRead(n_files, n_total):
                    bar.update(task, completed=n_files, total=n_total, note="headers read")
                case e.Planned(n_series=n_series, n_files=n_files, n_reused=n_reused):
                    note = f"{n_series} series, {n_reused} known"
                    bar.reset(task, description="preprocess", total=n_files, rate="", note=note)
                case e.SeriesFinished():
                    n_bytes += 0 if event.cached else event.nbytes
                    speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
                    elapsed_s = bar.tasks[0].elapsed or 0.0
                    rate = ""
                    if speed and n_bytes and elapsed_s >= LEAST_S:
                        per_second = size_text(int(n_bytes / elapsed_s))
                        rate = f"{speed:,.0f} files/s, {per_second}/s"
                    note = f"{size_text(n_bytes)} read"
                    bar.update(task, advance=event.n_files, rate=rate, note=note)
                case e.Finished():
                    finished = event
    assert finished is not None
    return finished


def _tell(events: Iterable[Event]) -> Finished:
    """Print progress as lines."""
    from lumbar.pipeline import events as e

    finished: e.Finished | None = None
    n_found = n_read = 0
    lines = ProgressLines(None, name="scan")
    headers: ProgressLines | None = None
    scanned_s = time.monotonic()
    for event in events:
        match event:
            case e.Scanned(n_files):
                scanned_s = time.monotonic()
                lines.add(n_files - n_found, 0, was_read=True)
                n_found = n_files
            case e.HeadersRead(n_files, n_total):
                headers = headers or ProgressLines(n_total, name="headers", started_s=scanned_s)
                headers.add(n_files - n_read, 0, was_read=True)
                n_read = n_files
            case e.Planned(n_series=n_series, n_files=n_files, n_reused=n_reused):
                say(
                    f"preprocess: {n_found:,} files found, {n_files:,} of them in "
                    f"{n_series:,} series, {n_reused:,} known"
                )
                lines = ProgressLines(n_files)
            case e.SeriesFinished():
                lines.add(event.n_files, event.nbytes, was_read=not event.cached)
            case e.Finished():
                finished = event
    assert finished is not None
    return finished


def _show_counts(finished: Finished) -> None:
    table = Table(title="preprocess", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("files", f"{finished.n_files:,}")
    table.add_row("series in the cache", f"{finished.n_series:,}")
    table.add_row("  unchanged from before", f"{finished.n_reused:,}")
    if finished.n_changed:
        table.add_row("  decoded again, the source changed", f"{finished.n_changed:,}")
    table.add_row("series left out", f"{finished.n_rejected_series:,}")
    if finished.n_vanished:
        table.add_row("series no longer in the source", f"{finished.n_vanished:,}")
    for join in finished.joins:
        table.add_row(escape(f"{join.file}: {join.unit} with images"), f"{join.n_matched:,}")
        if join.n_repaired:
            table.add_row("  spelt otherwise in the table", f"{join.n_repaired:,}")
        table.add_row("  in the table alone", f"{join.n_only_in_csv:,}")
        table.add_row("  in the images alone", f"{join.n_only_in_images:,}")
    if finished.n_points:
        n_flagged = sum(finished.points_by_flag.values())
        table.add_row("points with a place", f"{finished.n_points - n_flagged:,}")
    for flag, count in finished.points_by_flag.items():
        table.add_row(f"  point: {flag}", f"{count:,}")
    for reason, count in finished.rejected_by_reason.items():
        table.add_row(f"  rejected: {reason}", f"{count:,}")
    for flag, count in finished.flags.items():
        table.add_row(f"  flag: {flag}", f"{count:,}")
    console.print(table)


def show_reasons(counts: Mapping[str, int], cache: Path | None = None) -> None:
    """Print what each reason of rejected files means, and the command that lists the files.

    Without a ``cache``, the command that makes one is named first.
    """
    from lumbar.pipeline.reject import SENTENCES, Reason

    for name in counts:
        say(f"{name}: {SENTENCES[Reason(name)]}")
    if counts:
        first = next(iter(counts))
        make = "" if cache else "`lumbar preprocess --src SRC --out CACHE`, then "
        folder = shlex.quote(str(cache)) if cache else "CACHE"
        say(f"the files of a reason: {make}`lumbar inspect {folder} --reason {first}`")
