"""The size of a cache against the memory, and how fast the disk reads it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from lumbar.cache.errors import InputError
from lumbar.cache.files.page_cache import forget_files
from lumbar.cache.store import Cache
from lumbar.doctor.machine.facts import memory_bytes
from lumbar.doctor.result import CheckResult, Fact, told
from lumbar.train.telemetry.cgroup import memory_limit_bytes

MOST_BYTES = 512 * 10**6
MOST_SECONDS = 5.0
"""Where reading stops."""
BLOCK_BYTES = 2**20


def tell_cache(root: Path) -> CheckResult:
    """Return a cache's size and the reading rate of files that are not in the page cache."""
    cache = Cache(root)
    files = [root / path for path in cache.series["path"]]
    if not files:
        raise InputError(what="the cache holds no series", where=root, expected="one or more")
    total = sum(file.stat().st_size for file in files)
    memory = min(memory_bytes(), memory_limit_bytes() or memory_bytes())
    facts = (
        Fact("cache", f"{len(files)} series, {total / 1e9:.2f} GB ({cache.profile})"),
        Fact("of the memory", f"{total / memory:.0%}"),
        Fact("cold reading", cold_rate(files)),
    )
    return told(facts)


def cold_rate(files: list[Path]) -> str:
    """Read files after dropping them from the page cache, up to `MOST_BYTES`; return the MB/s."""
    order = np.random.default_rng(0).permutation(len(files))
    done, spent = 0, 0.0
    for index in order:
        forget_files([files[index]])
        started = time.perf_counter()
        done += _read(files[index])
        spent += time.perf_counter() - started
        if done >= MOST_BYTES or spent >= MOST_SECONDS:
            break
    return f"{done / 1e6 / max(spent, 1e-9):.0f} MB/s, one thread ({done / 1e6:.0f} MB read)"


def _read(file: Path) -> int:
    done = 0
    descriptor = os.open(file, os.O_RDONLY)
    try:
        while block := os.read(descriptor, BLOCK_BYTES):
            done += len(block)
    finally:
        os.close(descriptor)
    return done
