"""Ask the system to read parts of a file into its page cache before they are needed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path

Span = tuple[int, int]
"""First byte and the byte after the last."""


def spans_of_slices(slices: Iterable[int], slice_nbytes: int) -> list[Span]:
    """Return the pages that hold some slices of a plain volume, in order, neighbours merged.

    Slices below zero are skipped.
    """
    spans: list[Span] = []
    for d in sorted({d for d in slices if d >= 0}):
        start = d * slice_nbytes // mmap.PAGESIZE * mmap.PAGESIZE
        stop = -(-(d + 1) * slice_nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], stop
        else:
            spans.append((start, stop))
    return spans


def advise(path: Path, spans: Iterable[Span]) -> None:
    """Ask the system to read parts of a file into its page cache; returns before it has.

    Errors are ignored: reading the file raises them again.
    """
    try:
        with path.open("rb", buffering=0) as file:
            for start, stop in spans:
                os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_WILLNEED)
    except OSError:
        return
