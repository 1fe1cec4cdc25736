"""Worker processes: few tasks in flight, and a death that is an error and not a hang."""

import os

import pytest

from lumbar.cache.errors import LumbarError
from lumbar.pipeline.workers import IN_FLIGHT_PER_WORKER, run_unordered, worker_pool


def test_tasks_are_drawn_as_they_are_needed():
    drawn = []

    def tasks():
        for number in range(20):
            drawn.append(number)
            yield number

    with worker_pool(1) as pool:
        results = run_unordered(pool, 1, abs, tasks())
        first = next(results)
        assert len(drawn) == IN_FLIGHT_PER_WORKER
        assert sorted([first, *results]) == list(range(20))


def test_no_workers_is_this_process():
    with worker_pool(0) as pool:
        assert pool is None
        assert list(run_unordered(pool, 0, lambda _: os.getpid(), [1])) == [os.getpid()]


def test_death_of_a_worker_is_an_error():
    with worker_pool(1) as pool, pytest.raises(LumbarError, match="worker process died"):
        list(run_unordered(pool, 1, os._exit, [3]))
