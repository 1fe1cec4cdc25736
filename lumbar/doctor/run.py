"""Run the checks in another process, so that the report survives a crash of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from lumbar.doctor.checks import Check, run_check
from lumbar.doctor.result import Row, failed

Answers = Any
"""An end of a pipe, whose class takes parameters for a type checker alone."""

LIMIT_SECONDS = 120.0
"""A check that takes longer is stopped: a driver can hang for ever."""

GRACE_SECONDS = 5.0


def run_checks(checks: Sequence[Check], *, limit_seconds: float = LIMIT_SECONDS) -> Iterator[Row]:
    """Yield the row of each check in order.

    A check that ends the process or takes longer than ``limit_seconds`` has failed; a new process
    runs the rest.
    """
    left = list(checks)
    while left:
        answers, process = _start(left)
        try:
            lost = False
            while left and not lost:
                row = _next_row(answers, process, left[0], limit_seconds)
                lost = row is None
                check = left.pop(0)
                yield row or _lost(check, process, limit_seconds)
        finally:
            _end(process)
            answers.close()


def _start(checks: list[Check]) -> tuple[Answers, BaseProcess]:
    # A new interpreter: a fork would share the state of libraries.
    context = multiprocessing.get_context("spawn")
    answers, to_us = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(to_us, checks), name="lumbar-doctor")
    process.start()
    to_us.close()
    return answers, process


def _work(answers: Answers, checks: list[Check]) -> None:
    """Send a row for each check; the output of libraries is discarded."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    for check in checks:
        answers.send(run_check(check))


def _next_row(
    answers: Answers, process: BaseProcess, check: Check, limit_seconds: float
) -> Row | None:
    """Return a check's row, or None where the process ended or was killed."""
    if answers.poll(limit_seconds):
        try:
            row: Row = answers.recv()
        except EOFError:
            process.join(GRACE_SECONDS)
            return None
        assert row.name == check.name
        return row
    process.kill()
    process.join(GRACE_SECONDS)
    return None


def _lost(check: Check, process: BaseProcess, limit_seconds: float) -> Row:
    code = process.exitcode
    if code == -signal.SIGKILL:
        found = f"it did not end within {limit_seconds:.0f} s, or the system killed it for memory"
    elif code is not None and code < 0:
        found = f"its process ended by {signal.Signals(-code).name}"
    else:
        found = f"its process ended with exit status {code}"
    return Row(check.name, failed(found, check.cure), 0.0)


def _end(process: BaseProcess) -> None:
    process.join(GRACE_SECONDS if process.exitcode is None else 0)
    if process.exitcode is None:
        process.kill()
        process.join()
