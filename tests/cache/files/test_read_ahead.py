import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.cache.files.read_ahead import spans_of_slices
from lumbar.cache.store import Cache

PAGE = mmap.PAGESIZE


@given(slices=st.lists(st.integers(-3, 30), max_size=20), nbytes=st.integers(1, 3 * PAGE))
def test_spans_are_the_pages_of_the_slices_and_no_others(slices, nbytes):
    spans = spans_of_slices(slices, nbytes)
    wanted = {
        page
        for d in slices
        if d >= 0
        for page in range(d * nbytes // PAGE, ((d + 1) * nbytes - 1) // PAGE + 1)
    }
    found = [page for start, stop in spans for page in range(start // PAGE, stop // PAGE)]
    assert found == sorted(wanted)
    assert all(start % PAGE == stop % PAGE == 0 for start, stop in spans)
    assert all(a[1] < b[0] for a, b in pairwise(spans))


def test_neighbours_are_one_span():
    assert spans_of_slices([7, 2, -1, 3, 3], 2 * PAGE) == [
        (4 * PAGE, 8 * PAGE),
        (14 * PAGE, 16 * PAGE),
    ]


@pytest.fixture
def advised(monkeypatch):
    """The advice that was given: file, first byte, number of bytes, advice."""
    given_advice = []
    genuine = os.posix_fadvise

    def record(descriptor, start, length, advice):
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        given_advice.append((name, start, length, advice))
        return genuine(descriptor, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", record)
    return given_advice


def test_a_plain_volume_is_advised_by_slices(tiny_cache, advised):
    cache = Cache(tiny_cache)
    cache.read_ahead(0, [0])
    cache.read_ahead(0, np.array([-1, 4], np.int32))
    name = str((tiny_cache / cache.series["path"][0]).resolve())
    start = 4 * 96 * 80 // PAGE * PAGE
    assert advised == [
        (name, 0, 2 * PAGE, os.POSIX_FADV_WILLNEED),
        (name, start, -(-5 * 96 * 80 // PAGE) * PAGE - start, os.POSIX_FADV_WILLNEED),
    ]


def test_a_compressed_volume_is_advised_whole(archive_cache, advised):
    cache = Cache(archive_cache)
    cache.read_ahead(1, [2])
    path = (archive_cache / cache.series["path"][1]).resolve()
    assert advised == [(str(path), 0, path.stat().st_size, os.POSIX_FADV_WILLNEED)]


@pytest.mark.parametrize("name", ["tiny_cache", "archive_cache"])
def test_advice_harms_nothing(name, request):
    cache = Cache(request.getfixturevalue(name))
    before = np.array(cache.volume(0))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cache.read_ahead(0, range(5)), range(50)))
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert np.array_equal(cache.volume(0), before)
    (cache.root / cache.series["path"][1]).unlink()
    cache.read_ahead(1, [0])
