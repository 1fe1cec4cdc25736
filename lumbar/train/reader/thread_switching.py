"""How long a Python thread may hold the interpreter while others wait."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERVAL_SECONDS = 0.0005
"""A tenth of Python's default of 5 ms, in which a GPU would run out of kernels."""


@contextmanager
def quick_thread_switches() -> Iterator[None]:
    """Give the interpreter sooner to the thread that starts GPU kernels, while others prepare data.

    The setting belongs to the whole process, and is restored at the end.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, INTERVAL_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
