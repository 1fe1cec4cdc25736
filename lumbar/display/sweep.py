"""The output of ``lumbar sweep``: a bar over its trials, a line per trial, a table of the best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.evaluate import STAND_IN, STAND_IN_NOTE
from lumbar.display.terminal import progress, say, show_table

if TYPE_CHECKING:
    from lumbar.train.sweep.events import SweepEvent, SweepFinished, TrialRow

MOST_ROWS = 15
"""Trials in the table at the end; ``results.csv`` has all."""


def show_sweep(events: Iterable[SweepEvent]) -> SweepFinished:
    """Draw a sweep: a bar over all trials, a line for each that is over, then the results."""
    from lumbar.train.sweep import events as e

    finished: e.SweepFinished | None = None
    has_prior = False
    with progress() as bar:
        task = bar.add_task("sweep", total=None, rate="", note="")
        for event in events:
            match event:
                case e.SweepStarted():
                    bar.console.print(
                        f"{event.over} of {event.trials} trials are over; storage: {event.storage} "
                        f"-> {event.folder}",
                        markup=False,
                        highlight=False,
                        soft_wrap=True,
                    )
                    bar.update(task, total=event.trials, completed=event.over)
                case e.TrialStarted():
                    has_prior = has_prior or event.has_prior_cells
                    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
                    note = f"trial {event.number}{again}: epoch {event.first_epoch}/{event.epochs}"
                    bar.update(task, note=note, rate="")
                case e.TrialEpoch():
                    bar.update(
                        task,
                        note=f"trial {event.number}: epoch {event.epoch.epoch + 1}/{event.epochs}",
                        rate=f"metric {event.epoch.score.total:.3f}",
                    )
                case e.TrialFinished():
                    bar.update(task, completed=event.over, note="", rate="")
                    bar.console.print(
                        _trial_line(event.row, event.best),
                        markup=False,
                        highlight=False,
                        soft_wrap=True,
                    )
                case e.SweepFinished():
                    finished = event
    assert finished is not None
    _show_results(finished, has_prior=has_prior)
    return finished


def _trial_line(row: TrialRow, best: TrialRow | None) -> str:
    from lumbar.train.sweep.text import text_of

    values = ", ".join(f"{key}={text_of(value)}" for key, value in row.params.items())
    line = f"trial {row.number} {row.state}"
    if row.score is not None:
        line += f": {row.score:.4f} at epoch {row.best_epoch} of {row.epochs}"
    if best is not None and best.number == row.number:
        line += " (best)"
    return f"{line}; {values}" + (f"; {row.note}" if row.note else "")


def _show_results(finished: SweepFinished, *, has_prior: bool) -> None:
    from lumbar.train.sweep.results import in_order_of_merit
    from lumbar.train.sweep.text import text_of

    rows = [row for row in in_order_of_merit(finished.rows) if row.state != "retried"]
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    metric = f"metric {STAND_IN}" if has_prior else "metric"
    show_table(
        f"the best {MOST_ROWS} of {len(rows)} trials" if len(rows) > MOST_ROWS else "trials",
        ("trial", metric, "epoch", "minutes", *keys, "state"),
        [
            (
                row.number,
                "" if row.score is None else f"{row.score:.4f}",
                "" if row.best_epoch is None else f"{row.best_epoch}/{row.epochs}",
                "" if row.minutes is None else f"{row.minutes:.1f}",
                *(text_of(row.params.get(key, "")) for key in keys),
                row.state,
            )
            for row in rows[:MOST_ROWS]
        ],
    )
    if has_prior:
        say(STAND_IN_NOTE)
    if finished.importances:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in finished.importances.items())
        say(f"what makes a trial good: {shares}")
