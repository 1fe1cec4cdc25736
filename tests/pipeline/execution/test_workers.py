"""Worker processes: few tasks in flight, and one that dies or hangs costs its own task alone."""

import os
import signal
import time
from functools import partial

import pytest

from lumbar.cache.errors import InputError, LumbarError
from lumbar.pipeline.execution import workers as module
from lumbar.pipeline.execution.runner import InProcess, Loss, Lost
from lumbar.pipeline.execution.workers import IN_FLIGHT_PER_WORKER, worker_pool


def test_tasks_are_drawn_as_they_are_needed():
    drawn = []

    def tasks():
        for number in range(20):
            drawn.append(number)
            yield number

    with worker_pool(1) as runner:
        results = runner.run(abs, tasks())
        first = next(results)
        assert len(drawn) == IN_FLIGHT_PER_WORKER
        assert sorted([first, *results]) == list(range(20))


def test_no_workers_is_this_process():
    with worker_pool(0) as runner:
        assert isinstance(runner, InProcess)
        assert list(runner.run(lambda _: os.getpid(), [1])) == [os.getpid()]


@pytest.mark.parametrize(("workers", "timeout_s"), [(-1, 1.0), (1, 0.0), (1, float("nan"))])
def test_numbers_that_cannot_be_are_refused(workers, timeout_s):
    with pytest.raises(InputError), worker_pool(workers, timeout_s=timeout_s):
        pass


def test_a_death_costs_one_task_and_says_how():
    """The tasks before and behind it, in the same worker and in the other, are all done."""
    with worker_pool(2) as runner:
        tasks = [0] * 5 + [int(signal.SIGSEGV)] + [0] * 6
        outcomes = list(runner.run(signal.raise_signal, tasks))
        assert outcomes.count(None) == 11
        (lost,) = [outcome for outcome in outcomes if outcome is not None]
        assert (lost.task, lost.how) == (int(signal.SIGSEGV), Loss.CRASHED)
        assert lost.detail.endswith("SIGSEGV")
        (ended,) = runner.run(os._exit, [7])
        assert ended.detail.endswith("status 7")
        assert list(runner.run(abs, [-3])) == [3]


def hang(marker):
    """Return an expression that creates a file and hangs."""
    return f"open({str(marker)!r}, 'w').close() or __import__('time').sleep(3600)"


def test_a_hang_costs_one_task_and_the_rest_go_on(hanging):
    with worker_pool(2, timeout_s=60.0) as runner:
        outcomes = list(runner.run(eval, ["1", hang(hanging), "1", "1", "1"]))
        assert outcomes.count(1) == 4
        (lost,) = [outcome for outcome in outcomes if isinstance(outcome, Lost)]
        assert (lost.task, lost.how) == (hang(hanging), Loss.TIMED_OUT)
        assert lost.detail == "more than 60 s"


def test_time_is_counted_from_the_start_of_a_task():
    """The second task waits for the first: both together take longer than the limit."""
    with worker_pool(1, timeout_s=2.9) as runner:
        assert list(runner.run(time.sleep, [0, 1.5, 1.5])) == [None] * 3


def test_a_task_larger_than_a_pipe_does_not_wait_for_a_busy_worker(hanging):
    with worker_pool(1, timeout_s=60.0) as runner:
        big = "0" * 2**20
        outcomes = list(runner.run(eval, [hang(hanging), f"len('{big}')"]))
        assert [o for o in outcomes if not isinstance(o, Lost)] == [len(big)]


def test_one_at_once_is_one_worker():
    with worker_pool(2) as runner:
        calls = ["__import__('os').getpid()"] * 6
        assert len(set(runner.run(eval, calls, at_once=1))) == 1


def test_a_worker_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "_work", os._exit)
    with worker_pool(1) as runner, pytest.raises(LumbarError, match="cannot start"):
        list(runner.run(abs, [1]))


def test_errors_come_back():
    with worker_pool(1) as runner:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            list(runner.run(os.stat, ["nowhere"]))
        with pytest.raises(LumbarError, match="ZeroDivisionError"):
            list(runner.run(partial(divmod, 1), [0]))
        assert list(runner.run(abs, [-3])) == [3]


def test_stopping_early_ends_what_is_under_way():
    with worker_pool(2) as runner:
        outcomes = runner.run(time.sleep, [0, 3600, 3600, 3600])
        next(outcomes)
        outcomes.close()
        assert list(runner.run(abs, [-3, -4], at_once=1)) == [3, 4]
