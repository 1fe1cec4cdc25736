"""Run a function over many tasks: in this process, or in workers with few tasks in flight."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import cv2

from lumbar.cache.errors import InputError, LumbarError

Task = TypeVar("Task")
Result = TypeVar("Result")

IN_FLIGHT_PER_WORKER = 2
"""Enough that no worker waits for the parent, few enough that a stopped run stops soon."""


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Start worker processes, or none at all for ``workers=0``; end them on the way out.

    Raises
    ------
    InputError
        If ``workers`` is negative.
    """
    if workers < 0:
        raise InputError(what="workers", got=workers, expected="0 or more")
    if workers == 0:
        yield None
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_unordered(
    pool: ProcessPoolExecutor | None,
    workers: int,
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
) -> Iterator[Result]:
    """Yield the results as they come, at most `IN_FLIGHT_PER_WORKER` tasks a worker under way.

    Raises
    ------
    LumbarError
        If a worker process dies.
    """
    if pool is None:
        yield from map(function, tasks)
        return
    waiting = iter(tasks)
    in_flight: set[Future[Result]] = set()
    try:
        while True:
            free = workers * IN_FLIGHT_PER_WORKER - len(in_flight)
            in_flight |= {pool.submit(function, task) for task in islice(waiting, free)}
            if not in_flight:
                return
            done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise LumbarError(
            what="a worker process died",
            got=error,
            cure="run again with --workers 0: it goes on where this run stopped",
        ) from error


def _start_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    cv2.setNumThreads(1)  # the processes already fill the cores


def _end_with_parent() -> None:
    """End this process when its parent is gone, so that no orphan writes into the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
