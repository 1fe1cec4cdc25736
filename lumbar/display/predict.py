"""How ``lumbar predict`` looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.preprocess import show_reasons
from lumbar.display.terminal import progress, say, show_table

if TYPE_CHECKING:
    from lumbar.pipeline.events import Event
    from lumbar.train.ensemble.combine import Served
    from lumbar.train.evaluation.submission import Rows
    from lumbar.train.inference.predict import Predictions
    from lumbar.train.inference.run_models import StudiesPredicted


def show_prediction(events: Iterable[Event | StudiesPredicted | Predictions]) -> Predictions:
    """Draw a prediction, and the preprocessing before it; return what was predicted."""
    from lumbar.pipeline.events import Finished, SeriesFinished
    from lumbar.train.inference.predict import Predictions as Final
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
                    predictions = event
    if rejected:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common())
        say(f"rejected files and series: {counts}")
        show_reasons(rejected)
    return predictions


def show_served(served: Served, rows: Rows) -> None:
    """Show how many rows each served, and why."""
    pairs = zip(rows.study.tolist(), rows.cell.tolist(), strict=True)
    counts = Counter((served.served_by[s][c], served.reasons[s][c]) for s, c in pairs)
    show_table(
        "who served the rows",
        ("served by", "reason", "rows"),
        [(names, str(reason), count) for (names, reason), count in counts.most_common()],
    )
