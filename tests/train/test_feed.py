"""The thread ahead of the pipeline: in order, bounded, and gone when told."""

import threading
import time

import numpy as np
import pytest

from lumbar.cache.errors import InputError
from lumbar.train.feed import Feed, Step


def step_of(epoch, step):
    """Return a step that says which it is, by its keys."""
    return Step(
        requests=[],
        mix=None,
        volumes=[],
        slices=np.zeros((1, 1), np.int32),
        matrices=np.zeros((1, 2, 3), np.float32),
        numbers=np.zeros((1, 18), np.float32),
        keys=np.array([[epoch, step]], np.uint32),
    )


def place_of(step):
    return tuple(step.keys[0].tolist())


@pytest.fixture
def made():
    """The steps prepared so far, and what prepares them."""
    made = []

    def prepared(epoch, step):
        made.append((epoch, step))
        return step_of(epoch, step)

    return made, prepared


def wait_until(true):
    for _ in range(200):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError


def test_steps_come_in_order_over_epochs_from_the_start(made):
    _, prepared = made
    feed = Feed(prepared, steps=3, start=(4, 1), ahead=2)
    assert [place_of(feed.next()) for _ in range(6)] == [
        (4, 1),
        (4, 2),
        (5, 0),
        (5, 1),
        (5, 2),
        (6, 0),
    ]
    feed.close()


def test_no_more_are_prepared_than_may_wait(made):
    steps, prepared = made
    feed = Feed(prepared, steps=100, start=(0, 0), ahead=2)
    wait_until(lambda: len(steps) == 3)  # two wait, one is held
    time.sleep(0.3)
    assert len(steps) == 3
    feed.next()
    wait_until(lambda: len(steps) == 4)
    feed.close()


def test_closing_ends_the_thread_whether_it_waits_or_not(made):
    _, prepared = made
    for taken in (0, 1):
        feed = Feed(prepared, steps=5, start=(0, 0), ahead=1)
        for _ in range(taken):
            feed.next()
        assert any(t.name == "lumbar-feed" for t in threading.enumerate())
        feed.close()
        feed.close()
        assert not any(t.name == "lumbar-feed" for t in threading.enumerate())


def test_what_a_preparation_raises_is_raised_where_it_is_read(made):
    def prepared(epoch, step):
        if step == 1:
            raise InputError(what="no such volume", where=step)
        return step_of(epoch, step)

    feed = Feed(prepared, steps=5, start=(0, 0), ahead=2)
    feed.next()
    with pytest.raises(InputError, match="no such volume"):
        feed.next()
    feed.close()
