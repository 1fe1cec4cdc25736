"""Run tasks on an existing Dask cluster, whose machines see source and cache under one path.

Optional: ``pip install lumbar[dask]``. If a worker is lost, another does its tasks. A task that
takes several workers down is reported as lost, and the rest goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from lumbar.cache.errors import InputError, LumbarError
from lumbar.pipeline.execution.runner import Loss, Lost, Runner

Task = TypeVar("Task")
Result = TypeVar("Result")

CONNECT_S = 30.0
IN_FLIGHT_PER_THREAD = 2


@contextmanager
def dask_cluster(address: str) -> Iterator[Runner]:
    """Connect to the scheduler at ``tcp://host:port``; the cluster stays when this ends.

    Raises
    ------
    InputError
        If Dask is not installed or no scheduler answers.
    """
    try:
        from distributed import Client  # noqa: PLC0415  # optional, and slow to import
    except ImportError as error:
        raise InputError(
            what="Dask is not installed",
            where="--scheduler",
            got=error,
            cure="pip install 'lumbar[dask]'",
        ) from error
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            what="no Dask scheduler answers",
            where=address,
            got=error,
            expected="the address that `dask scheduler` printed, such as tcp://node1:8786",
            cure="start it, or check --scheduler",
        ) from error
    with _quiet_dask(), client:
        yield DaskCluster(client)


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Keep Dask from logging a traceback for each lost connection."""
    logger = logging.getLogger("distributed.client")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class DaskCluster:
    """Runs tasks on a cluster."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        at_once: int | None = None,
    ) -> Iterator[Result | Lost[Task]]:
        """Yield the results as they come, and the tasks that were lost.

        Raises
        ------
        LumbarError
            If the scheduler is lost.
        """
        from distributed import KilledWorker  # noqa: PLC0415

        waiting = iter(tasks)
        under_way: dict[Any, Task] = {}
        try:
            while True:
                most = at_once or self._most_at_once()
                for task in islice(waiting, max(0, most - len(under_way))):
                    under_way[self._client.submit(function, task, pure=False)] = task
                if not under_way:
                    return
                for future in self._wait_for_some(list(under_way)):
                    task = under_way.pop(future)
                    error = future.exception()
                    if isinstance(error, KilledWorker):
                        yield Lost(task, Loss.CRASHED, "each worker that tried it was lost")
                    else:
                        yield future.result()
        finally:
            self._client.cancel(list(under_way))

    def _wait_for_some(self, futures: list[Any]) -> set[Any]:
        from distributed import CancelledError, wait  # noqa: PLC0415

        try:
            with self._client.as_current():
                done, _ = wait(futures, return_when="FIRST_COMPLETED")
        except CancelledError as error:  # nobody else cancels them
            raise LumbarError(
                what="the Dask scheduler is lost",
                where=self._client.scheduler.address,
                cure="start it and run the same command again: what is done stays done",
            ) from error
        return set(done)

    def _most_at_once(self) -> int:
        """Return how many tasks keep all present workers busy."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, IN_FLIGHT_PER_THREAD * sum(threads.values()))
