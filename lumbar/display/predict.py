"""The output of ``lumbar predict``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.preprocess import show_reasons
from lumbar.display.terminal import progress, say, show_table

if TYPE_CHECKING:
    from lumbar.pipeline.events import Event
    from lumbar.train.ensemble.combine import Combined
    from lumbar.train.evaluation.submission import Rows
    from lumbar.train.inference.run_models import StudiesPredicted


def show_prediction(events: Iterable[Event | StudiesPredicted | Combined]) -> Combined:
    """Show the progress of a prediction and its preprocessing; return what was predicted."""
    from lumbar.pipeline.events import Finished, SeriesFinished
    from lumbar.train.ensemble.combine import Combined as Final
    from lumbar.train.inference.run_models import StudiesPredicted as Done

    n_series, rejected = 0, Counter[str]()
    with progress() as bar:
        task = bar.add_task("predict", total=None, rate="", note="")
        for event in events:
            match event:
                case SeriesFinished():
                    n_series += 1
                    bar.update(task, note=f"{n_series:,} series read")
                case Finished():
                    rejected.update(event.rejected_by_reason)
                case Done():
                    bar.update(task, completed=event.done, total=event.total, rate="studies")
                case Final():
                    combined = event
    if rejected:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common())
        say(f"rejected files and series: {counts}")
        show_reasons(rejected)
    return combined


def show_provenance(combined: Combined, rows: Rows) -> None:
    """Show how many rows come from which models, and why."""
    counts = Counter(
        (combined.model_names[study][cell], combined.reasons[study][cell])
        for study, cell in rows.cells
    )
    show_table(
        "models of the rows",
        ("models", "reason", "rows"),
        [(names, str(reason), count) for (names, reason), count in counts.most_common()],
    )
