"""Prepare the steps of a plan ahead of the pipeline, in a thread."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, UInt32

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import for_stored
from lumbar.train.plan.mixup import Mix
from lumbar.train.plan.plan import Plan, Request
from lumbar.train.reader.volumes import Volumes

POLL_SECONDS = 0.1
"""How often a waiting thread checks whether to end."""


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """The inputs of the pipeline for one step: one entry per view.

    ``numbers`` are `lumbar.train.plan.pixel_params`, with the storage scale folded in.
    """

    requests: list[Request]
    mix: Mix | None
    volumes: list[Any]
    slices: Int32[np.ndarray, "v d"]
    matrices: Float32[np.ndarray, "v 2 3"]
    numbers: Float32[np.ndarray, "v 18"]
    keys: UInt32[np.ndarray, "v 2"]


def prepare_step(plan: Plan, cache: Cache, volumes: Volumes, epoch: int, step: int) -> PreparedStep:
    """Compute one step of a plan and fetch its volumes."""
    requests = plan.requests(epoch, step)
    views = [view for request in requests for view in request.views]
    arrays, slices = volumes.fetch(views)
    scale, offset = np.array([cache.scale_and_offset(view.row) for view in views]).T
    return PreparedStep(
        requests=requests,
        mix=plan.mix(epoch, step, len(requests)),
        volumes=arrays,
        slices=np.stack(slices),
        matrices=np.stack([view.matrix for view in views]),
        numbers=for_stored(np.stack([view.numbers for view in views]), scale, offset),
        keys=np.stack([view.key for view in views]),
    )


class Prefetcher:
    """Yields the steps of a plan in order, epoch after epoch, with a bounded number prepared ahead.

    An exception during preparation ends the thread; every later call raises it.

    Parameters
    ----------
    prepared
        Prepares a step of an epoch; called in the thread.
    steps
        Steps per epoch.
    start
        The first (epoch, step).
    ahead
        Prepared steps that may wait.
    """

    def __init__(self, prepared: Any, *, steps: int, start: tuple[int, int], ahead: int) -> None:
        self._prepared = prepared
        self._steps = steps
        self._start = start
        self._ready: queue.Queue[PreparedStep | BaseException] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="lumbar-prefetch", daemon=True)
        self._thread.start()

    def next(self) -> PreparedStep:
        """Wait for the next step; raise what `check` raises."""
        while True:
            self.check()
            try:
                found = self._ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if not isinstance(found, BaseException):
                return found
            self.fail(found)

    def check(self) -> None:
        """Raise the exception of a failed preparation, or `InputError` if interrupted or closed."""
        if isinstance(self._failure, Exception):
            raise self._failure
        if self._failure is not None:
            raise InputError(
                what="reading was interrupted within a step",
                got=type(self._failure).__name__,
                expected="a reader that was not interrupted",
                cure="open another at the `next_step` of this one",
            ) from self._failure
        if self._stopped.is_set():
            raise InputError(
                what="the reader is closed",
                expected="an open one",
                cure="open another at the `next_step` of this one",
            )

    def fail(self, error: BaseException) -> None:
        """Make every later call raise an error; the first one is kept."""
        if self._failure is None:
            self._failure = error

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        epoch, step = self._start
        while not self._stopped.is_set():
            try:
                found: PreparedStep | BaseException = self._prepared(epoch, step)
            except Exception as error:  # raised again in the thread that reads
                found = error
            if not self._put(found) or isinstance(found, BaseException):
                return
            step += 1
            if step == self._steps:
                epoch, step = epoch + 1, 0

    def _put(self, found: PreparedStep | BaseException) -> bool:
        """Queue a step, waiting for room; return False if the thread ended before."""
        while not self._stopped.is_set():
            try:
                self._ready.put(found, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
