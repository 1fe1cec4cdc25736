"""Worker processes, each with its own pipe, so that a crash or a hang is traced to its task.

A process pool of the standard library breaks as a whole, does not name the task, and cannot kill
one worker that hangs.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import cv2

from lumbar.cache.errors import InputError, LumbarError
from lumbar.pipeline.execution.runner import InProcess, Loss, Lost, Runner

Task = TypeVar("Task")
Result = TypeVar("Result")

IN_FLIGHT_PER_WORKER = 2
"""Enough that no worker waits for the parent, and few enough that a run stops soon."""

MOST_BYTES_AHEAD = 2**15
"""Half the capacity of a pipe: sending a task to a busy worker never blocks the parent."""

TIMEOUT_S = 600.0
"""A series takes 10 ms to 10 s: one that takes ten minutes hangs."""

START_S = 300.0
"""Imports take two seconds, from a cold network file system perhaps a minute."""

STOP_S = 10.0


@contextmanager
def worker_pool(workers: int, *, timeout_s: float = TIMEOUT_S) -> Iterator[Runner]:
    """Offer worker processes, or this process for ``workers=0``; end them afterwards.

    They start with the first tasks. ``timeout_s`` is the time limit of one task.

    Raises
    ------
    InputError
        If ``workers`` is negative or ``timeout_s`` is not positive.
    """
    if workers < 0:
        raise InputError(what="workers", got=workers, expected="0 or more")
    if not timeout_s > 0:
        raise InputError(what="timeout", got=timeout_s, expected="a number of seconds above 0")
    if workers == 0:
        yield InProcess()
        return
    pool = WorkerProcesses(workers, timeout_s)
    try:
        yield pool
    finally:
        pool.close()


@dataclass(slots=True, eq=False)
class Worker:
    """A process, and the tasks in ``sent`` that it has not answered; it works on the first.

    ``since`` is the start of that task or, until the process is ``ready``, of the process.
    """

    process: SpawnProcess
    connection: Connection
    sent: deque[Any] = field(default_factory=deque)
    ready: bool = False
    since: float = field(default_factory=time.monotonic)


class WorkerProcesses:
    """Processes that are started when they are needed, and replaced when one is lost."""

    def __init__(self, workers: int, timeout_s: float) -> None:
        self._most = workers
        self._timeout_s = timeout_s
        self._workers: list[Worker] = []

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        at_once: int | None = None,
    ) -> Iterator[Result | Lost[Task]]:
        """Yield the results as they come, and the tasks that were lost with their process.

        At most `IN_FLIGHT_PER_WORKER` tasks per worker are under way.

        Raises
        ------
        LumbarError
            If a process ends before it is ready for its first task.
        """
        most = min(at_once or self._most, self._most)
        ahead = IN_FLIGHT_PER_WORKER if at_once is None else 1
        waiting = _Waiting(tasks)
        try:
            while True:
                self._feed(function, waiting, most, ahead)
                busy = [worker for worker in self._workers if worker.sent]
                if not busy:
                    return
                wait([worker.connection for worker in busy], self._seconds_left(busy))
                for worker in busy:
                    yield from self._collect(worker, waiting)
        finally:
            # Their results are not needed, and they must not write after the run.
            for worker in [worker for worker in self._workers if worker.sent]:
                self._end(worker)

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(STOP_S)
        for worker in list(self._workers):
            self._end(worker)

    def _feed(
        self, function: Callable[[Task], Result], waiting: _Waiting[Task], most: int, ahead: int
    ) -> None:
        """Send tasks to idle workers, then to new ones, then ahead of need."""
        while (worker := self._next_worker(most, ahead)) is not None:
            try:
                task = next(waiting)
            except StopIteration:
                return
            message = pickle.dumps((function, task))
            if worker.sent and len(message) > MOST_BYTES_AHEAD:
                waiting.put_back([task])
                return
            worker.since = worker.since if worker.sent or not worker.ready else time.monotonic()
            worker.sent.append(task)
            # The death of a worker is noticed when its answer is read.
            with suppress(BrokenPipeError, ConnectionResetError):
                worker.connection.send_bytes(message)

    def _next_worker(self, most: int, ahead: int) -> Worker | None:
        """Return the worker for the next task: an idle one, a new one, or one with few tasks."""
        least = min(self._workers[:most], key=lambda worker: len(worker.sent), default=None)
        if least is not None and not least.sent:
            return least
        if len(self._workers) < most:
            return self._start()
        return least if least is not None and len(least.sent) < ahead else None

    def _start(self) -> Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that the worker's end is the only one, and its death closes the pipe
        self._workers.append(worker := Worker(process, ours))
        return worker

    def _seconds_left(self, busy: list[Worker]) -> float:
        """Return the seconds until the first time limit."""
        first = min(worker.since + self._limit_s(worker) for worker in busy)
        return max(0.0, first - time.monotonic())

    def _limit_s(self, worker: Worker) -> float:
        return self._timeout_s if worker.ready else START_S

    def _collect(self, worker: Worker, waiting: _Waiting[Task]) -> Iterator[Any]:
        """Yield a worker's answers; of a dead or late one yield its task and put back the rest."""
        try:
            while worker.sent and worker.connection.poll():
                answer = worker.connection.recv()
                worker.since = time.monotonic()
                if answer is None:
                    worker.ready = True
                else:
                    worker.sent.popleft()
                    yield _unpack(answer)
        except (EOFError, ConnectionResetError):
            worker.process.join(STOP_S)  # its pipe is closed before its status is known
            self._end(worker)
            yield self._lose(worker, waiting, Loss.CRASHED, _how_it_ended(worker.process))
            return
        if worker.sent and time.monotonic() >= worker.since + self._limit_s(worker):
            self._end(worker)
            yield self._lose(worker, waiting, Loss.TIMED_OUT, f"more than {self._timeout_s:g} s")

    def _lose(self, worker: Worker, waiting: _Waiting[Task], how: Loss, detail: str) -> Lost[Task]:
        """Return the current task of a dead worker, and put back the tasks it had not begun."""
        if not worker.ready:
            raise LumbarError(
                what="a worker process cannot start",
                got=detail,
                expected="a process that imports lumbar",
                cure="try --workers 0, which needs none",
            )
        lost = worker.sent.popleft()
        waiting.put_back(worker.sent)
        worker.sent.clear()
        return Lost(lost, how, detail)

    def _end(self, worker: Worker) -> None:
        """Kill a process and wait until it is gone."""
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


class _Waiting(Iterator[Task]):
    """Tasks in their order; those that were put back come first."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = iter(tasks)
        self._back: deque[Task] = deque()

    def __next__(self) -> Task:
        return self._back.popleft() if self._back else next(self._tasks)

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Make these the next tasks."""
        self._back.extend(tasks)


def _unpack(answer: tuple[str, Any]) -> Any:
    """Return a result; raise what the function raised."""
    kind, value = answer
    if kind == "done":
        return value
    if isinstance(value, OSError):
        raise value
    raise LumbarError(what="a task failed in its worker", got=value, cure="report this defect")


def _how_it_ended(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"the decoder's process was ended by {signal.Signals(-code).name}"
    return f"the decoder's process ended with status {code}"


def _work(connection: Connection) -> None:
    """Answer tasks until the parent closes the pipe: None before the first, then one per task."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    cv2.setNumThreads(1)  # the processes already fill the cores
    is_ready = False
    while True:
        try:
            function, task = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        if not is_ready:  # the imports of the first task do not count for its time limit
            connection.send(None)
            is_ready = True
        connection.send(_answer(function, task))


def _answer(function: Callable[[Any], Any], task: Any) -> tuple[str, Any]:
    try:
        return "done", function(task)
    except OSError as error:
        return "failed", error
    except Exception:
        # The edge of a process: any other exception may not survive the pipe.
        return "failed", traceback.format_exc()


def _end_with_parent() -> None:
    """End this process after its parent, so that no orphan writes into the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
