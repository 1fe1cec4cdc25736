"""What has to be measured in a process of its own: the first batch, and memory over a long run.

    python -m contest.fresh first_batch STARTED < contest
    python -m contest.fresh memory BATCHES < contest

``contest`` is a pickled `contest.contest.Contest`; the answer is JSON on standard output.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contest.contest import Contest

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
            [sys.executable, "-m", "contest.fresh", question, argument or repr(time.monotonic())],
            input=pickle.dumps(contest),
            env={**os.environ, "NUMBA_CACHE_DIR": empty, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            check=True,
        )
    return dict(json.loads(answer.stdout))


def first_batch(contest: Contest, started: float) -> dict[str, float]:
    """Return seconds to the first batch, from the start of the process and of the reader."""
    from contest.contestants import CONTESTANTS, THREADS  # noqa: PLC0415

    opened = time.monotonic()
    with CONTESTANTS[0].open(contest, THREADS[0]) as batches:
        next(batches)
        done = time.monotonic()
    return {"from_process_start": done - started, "from_reader": done - opened}


def memory(contest: Contest, batches: int) -> dict[str, float]:
    """Return the slope of resident memory over the batches, by least squares after a warm-up."""
    import numpy as np  # noqa: PLC0415
    import psutil  # noqa: PLC0415

    from contest.contestants import CONTESTANTS, THREADS  # noqa: PLC0415

    megabytes = []
    process = psutil.Process()
    with CONTESTANTS[0].open(contest, THREADS[0]) as stream:
        for number in range(batches):
            next(stream)
            if number % EVERY == 0:
                megabytes.append(process.memory_info().rss / 1e6)
    epoch = -(-len(contest.rows) // contest.batch)
    flat_from = max(round(WARM_UP * batches), epoch) // EVERY
    after = np.array(megabytes[flat_from:])
    slope = np.polyfit(np.arange(len(after)) * EVERY / 1000, after, 1)[0]
    return {"slope": float(slope), "peak": max(megabytes)}


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
