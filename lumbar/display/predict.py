"""How ``lumbar predict`` looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lumbar.display.terminal import progress

if TYPE_CHECKING:
    from lumbar.train.predict import BatchPredicted, Predictions


def show_prediction(events: Iterable[BatchPredicted | Predictions]) -> Predictions:
    """Draw a prediction; return what was predicted."""
    from lumbar.train.predict import Predictions as Final

    with progress() as bar:
        task = bar.add_task("predict", total=None, rate="", note="")
        for event in events:
            if isinstance(event, Final):
                return event
            bar.update(task, completed=event.done, total=event.total)
    message = "a prediction ends with its result"
    raise AssertionError(message)
