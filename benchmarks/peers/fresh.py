"""What has to be measured in a process of its own: the first batch, and memory over a long run.

    python -m peers.fresh first_batch STARTED < contest
    python -m peers.fresh memory BATCHES < contest

``contest`` is a pickled `peers.contest.Contest`; the answer is JSON on standard output.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers.contest import Contest

EVERY = 10
"""Batches between two looks at the memory."""
WARM_UP = 0.1
"""The part of the batches before the slope is taken, at least one epoch."""


def ask(contest: Contest, question: str, argument: str = "") -> dict[str, Any]:
    """Run this module in a fresh process, with no compiled code of numba's at hand."""
    with tempfile.TemporaryDirectory() as empty:
        path = os.pathsep.join(part for part in sys.path if part)
        # The monotonic clock is one for all processes of a machine.
        answer = subprocess.run(
            [sys.executable, "-m", "peers.fresh", question, argument or repr(time.monotonic())],
            input=pickle.dumps(contest),
            env={**os.environ, "NUMBA_CACHE_DIR": empty, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            check=True,
        )
    return dict(json.loads(answer.stdout))


def forget_pages(root: Path) -> None:
    """Ask the system to drop a cache's files from the page cache."""
    for path in root.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def first_batch(contest: Contest, started: float) -> dict[str, float]:
    """Return seconds to the first batch, from the start of the process and of the reader."""
    from peers.lumbar_reader import open_batches  # noqa: PLC0415

    opened = time.monotonic()
    with open_batches(contest, 2) as batches:
        next(batches)
        done = time.monotonic()
    return {"from_process_start": done - started, "from_reader": done - opened}


def memory(contest: Contest, batches: int) -> dict[str, float]:
    """Return the slope of resident memory over the batches, by least squares after a warm-up."""
    import numpy as np  # noqa: PLC0415

    from peers.lumbar_reader import open_batches  # noqa: PLC0415

    megabytes = []
    with open_batches(contest, 2) as stream:
        for number in range(batches):
            next(stream)
            if number % EVERY == 0:
                megabytes.append(_resident_megabytes())
    epoch = -(-len(contest.rows) // contest.batch)
    flat_from = max(round(WARM_UP * batches), epoch) // EVERY
    after = np.array(megabytes[flat_from:])
    slope = np.polyfit(np.arange(len(after)) * EVERY / 1000, after, 1)[0]
    return {"slope": float(slope), "peak": max(megabytes)}


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Answer one question."""
    question, argument = sys.argv[1:]
    contest = pickle.loads(sys.stdin.buffer.read())
    if question == "first_batch":
        found = first_batch(contest, float(argument))
    else:
        found = memory(contest, int(argument))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
