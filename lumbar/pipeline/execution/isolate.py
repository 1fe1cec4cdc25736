"""A lost process is traced to its file: only that file is left out, not its series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from lumbar.pipeline.execution.runner import Loss, Lost, Runner
from lumbar.pipeline.reject import Reason, Rejection
from lumbar.pipeline.series.convert import SeriesResult, convert, probe, reject_series
from lumbar.pipeline.series.task import SeriesTask
from lumbar.pipeline.source.scan import Identified, identify

REASONS = {Loss.CRASHED: Reason.CRASHED, Loss.TIMED_OUT: Reason.TIMED_OUT}


def identify_safely(
    root: Path, batches: Iterable[list[str]], runner: Runner
) -> Iterator[Identified | Rejection]:
    """Yield the ids of each file of a bare tree, or the row of a file without, in any order."""
    lost: list[str] = []
    find = partial(identify, root)
    for found in runner.run(find, batches):
        if isinstance(found, Lost):
            lost.extend(found.task)
        else:
            yield from found
    for found in runner.run(find, [[path] for path in lost], at_once=1):
        if isinstance(found, Lost):
            yield Rejection("", "", found.task[0], REASONS[found.how], found.detail)
        else:
            yield from found


def convert_safely(tasks: Iterable[SeriesTask], runner: Runner) -> Iterator[SeriesResult]:
    """Convert series; after the loss of a process, convert its series again without the bad files.

    Raises
    ------
    OSError
        If the cache cannot be written or the source is gone.
    """
    lost: list[Lost[SeriesTask]] = []
    for result in runner.run(convert, tasks):
        if isinstance(result, Lost):
            lost.append(result)
        else:
            yield result
    # Last and alone: nothing else takes memory, and no other series waits for a time limit.
    for loss in lost:
        yield _convert_without_suspects(loss, runner)


def _convert_without_suspects(loss: Lost[SeriesTask], runner: Runner) -> SeriesResult:
    """Probe each file by itself, then convert the series without those that lost their process."""
    task = loss.task
    alone = [replace(task, files=(name,)) for name in task.files]
    refused = tuple(
        (suspect.task.files[0], REASONS[suspect.how], suspect.detail)
        for suspect in runner.run(probe, alone, at_once=1)
        if isinstance(suspect, Lost)
    )
    again = replace(task, refused=tuple(sorted(refused)))
    (result,) = runner.run(convert, [again], at_once=1)
    if isinstance(result, Lost):
        return reject_series(again, REASONS[result.how], result.detail)
    return result
