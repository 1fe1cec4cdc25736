"""How long a thread of Python may keep the others from running."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERVAL_SECONDS = 0.0005
"""A tenth of Python's own: within 5 ms a GPU ends many kernels, and waits for the next."""


@contextmanager
def quick_thread_switches() -> Iterator[None]:
    """Let the thread that starts the device's work have its turn soon, while others prepare data.

    A thread that asks for the interpreter gets it when this time is over, if the one that has it
    does not let go before. The setting is the whole process's, and is put back at the end.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, INTERVAL_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
