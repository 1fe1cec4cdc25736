"""The thread ahead of the pipeline: in order, bounded, and ended on close."""

import threading
import time

import numpy as np
import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.prefetch import Prefetcher, PreparedStep, prepare_step
from lumbar.train.reader.volumes import MappedVolumes


def step_of(epoch, step):
    """Return a step whose keys are its number."""
    return PreparedStep(
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


def test_a_step_has_an_entry_for_each_view_with_its_own_storage_scale(spine, monkeypatch):
    def fetch(_, views):
        return [view.row for view in views], [view.slices + 1 for view in views]

    monkeypatch.setattr(MappedVolumes, "fetch", fetch)
    monkeypatch.setattr(Cache, "scale_and_offset", lambda _, row: (1 / (row + 2), row / 10))
    augment = AugmentConfig(contrast=0.3, side_exchange=0.5, mixup=1.0)
    types = SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2
    samples = Samples.of_studies(spine, [f"s{number:02}" for number in range(9)], types)
    plan = Plan(samples, CropConfig(slices=6), augment, batch=5, shuffle=True)
    step = prepare_step(plan, spine, MappedVolumes(spine), 2, 0)
    views = [view for request in plan.requests(2, 0) for view in request.views]
    assert len(views) == 5 * 3
    assert step.volumes == [view.row for view in views]
    assert len(set(step.volumes)) >= 5
    for number, view in enumerate(views):
        scale, offset = 1 / (view.row + 2), view.row / 10
        gain, added = view.intensity.gain, view.intensity.offset
        expected = [scale * gain, offset * gain + added, *view.numbers[2:]]
        assert step.numbers[number] == pytest.approx(expected, rel=1e-6)
        assert (step.slices[number] == view.slices + 1).all(), "those of the volumes"
        assert (step.matrices[number] == view.matrix).all()
        assert (step.keys[number] == view.key).all()
    assert step.numbers.dtype == step.matrices.dtype == np.float32
    assert step.mix.share.tolist() == plan.mix(2, 0, 5).share.tolist()


def test_steps_come_in_order_over_epochs_from_the_start(made):
    _, prepared = made
    feed = Prefetcher(prepared, steps=3, start=(4, 1), ahead=2)
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
    feed = Prefetcher(prepared, steps=100, start=(0, 0), ahead=2)
    wait_until(lambda: len(steps) == 3)  # two wait, one is held
    time.sleep(0.3)
    assert len(steps) == 3
    feed.next()
    wait_until(lambda: len(steps) == 4)
    feed.close()


def test_closing_ends_the_thread_whether_it_waits_or_not(made):
    _, prepared = made
    for taken in (0, 1):
        feed = Prefetcher(prepared, steps=5, start=(0, 0), ahead=1)
        for _ in range(taken):
            feed.next()
        assert any(t.name == "lumbar-prefetch" for t in threading.enumerate())
        feed.close()
        feed.close()
        assert not any(t.name == "lumbar-prefetch" for t in threading.enumerate())


def test_what_a_preparation_raises_is_raised_where_it_is_read(made):
    def prepared(epoch, step):
        if step == 1:
            raise InputError(what="no such volume", where=step)
        return step_of(epoch, step)

    feed = Prefetcher(prepared, steps=5, start=(0, 0), ahead=2)
    feed.next()
    raised = []
    for _ in range(3):
        with pytest.raises(InputError, match="no such volume") as caught:
            feed.next()
        raised.append(caught.value)
    assert raised[0] is raised[1] is raised[2]
    feed.close()
    with pytest.raises(InputError, match="no such volume"):
        feed.next()


def test_a_waiting_call_raises_when_another_thread_closes():
    never = threading.Event()

    def prepared(epoch, step):
        never.wait(20)
        return step_of(epoch, step)

    feed = Prefetcher(prepared, steps=5, start=(0, 0), ahead=1)
    raised = []

    def wait():
        try:
            feed.next()
        except InputError as error:
            raised.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    closing = threading.Thread(target=feed.close)
    closing.start()
    waiting.join(10)
    assert not waiting.is_alive()
    never.set()
    closing.join(10)
    assert len(raised) == 1
    assert raised[0].startswith("the reader is closed; ")


def test_an_interruption_is_named(made):
    _, prepared = made
    feed = Prefetcher(prepared, steps=5, start=(0, 0), ahead=1)
    feed.fail(KeyboardInterrupt())
    feed.fail(ValueError("a later one"))
    with pytest.raises(InputError, match="interrupted") as caught:
        feed.next()
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    feed.close()
