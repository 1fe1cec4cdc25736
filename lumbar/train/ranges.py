"""Indices that follow each other, as a slice."""

from __future__ import annotations

from collections.abc import Sequence


def as_slice(indices: Sequence[int]) -> slice:
    """Return the slice of indices that follow each other.

    On a GPU a list of indices is first copied there, and the host waits; a slice needs no copy.
    """
    first, behind = indices[0], indices[-1] + 1
    assert list(indices) == list(range(first, behind)), f"{indices} do not follow each other"
    return slice(first, behind)
