"""A clock for worker processes that jumps as soon as a task hangs, however slow the machine is."""

import time
from types import SimpleNamespace

import pytest

from lumbar.pipeline.execution import workers


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """A file that a task creates before it hangs: the pool's clock then jumps to the time limit.

    It jumps once no other worker is busy, so that a time limit of minutes costs no time.
    """
    marker, genuine, jumped = tmp_path / "hanging", workers.wait, []

    def wait(connections, timeout):
        ready, left = [], timeout
        while not ready and left > 0:
            ready = genuine(connections, min(left, 0.05))
            left -= 0.05
            if not ready and len(connections) == 1 and marker.exists():
                marker.unlink()
                jumped.append(timeout)
                break
        return ready

    monkeypatch.setattr(workers, "wait", wait)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(jumped))
    monkeypatch.setattr(workers, "time", clock)
    return marker
