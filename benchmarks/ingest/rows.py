"""Results as rows: seconds become files a second and ratios, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from peers.rows import Row, row

from ingest.files import Kind
from lumbar.bench.measure.spread import Spread

FLOOR, LUMBAR = "floor", "lumbar"
MAX_MEMORY_MB = 400.0
LEAST_SCALING = 0.9

Seconds = Mapping[str, Sequence[float]]
"""Of each contestant, one number a round."""


def kind_rows(kind: Kind, seconds: Seconds, n_files: int, *, cold: bool) -> Iterator[Row]:
    """Yield lumbar over the floor, each peer over lumbar, and everyone's files a second.

    The target is for files in the page cache: where storage is slower, the ratio only falls.
    """
    start = f"cold/{kind.name}" if cold else kind.name
    own = seconds[LUMBAR]
    if FLOOR in seconds:
        over = ratio(own, seconds[FLOOR])
        limit = None if cold else kind.limit
        yield row(f"{start}/wall_over_floor", over, "times", target=limit, wanted="at most")
    for name, taken in seconds.items():
        if name not in {FLOOR, LUMBAR}:
            yield row(f"{start}/{name}_over_lumbar", ratio(taken, own), "times")
    for name, taken in seconds.items():
        speed = Spread.of([n_files / each for each in taken])
        yield row(f"{start}/{name}/files_per_second", speed, "files/s")
        each_ms = Spread.of([1000 * each / n_files for each in taken])
        yield row(f"{start}/{name}/wall_a_file", each_ms, "ms")


def memory_row(megabytes: Sequence[float]) -> Row:
    """Return the peak of a worker."""
    spread = Spread.of(megabytes)
    return row("memory_per_worker/peak", spread, "MB", target=MAX_MEMORY_MB, wanted="below")


def scaling_rows(alone: Seconds, together: Seconds, workers: int) -> Iterator[Row]:
    """Yield the share of ``workers`` times one worker's speed that lumbar and the floor reach."""
    for name, target in ((LUMBAR, LEAST_SCALING), (FLOOR, None)):
        share = ratio([each / workers for each in alone[name]], together[name])
        yield row(f"scaling/{name}", share, "of linear", target=target, workers=workers)


def decoder_rows(kind: Kind, times_ms: Mapping[str, float]) -> Iterator[Row]:
    """Yield what each decoder takes with the reading of its file; the least is the floor's."""
    for name, each in times_ms.items():
        one = Spread(each, each, each)
        yield row(f"{kind.name}/decoder/{name}", one, "ms a file", least_of=5)


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return a ratio of rounds."""
    return Spread.of((np.array(above) / np.array(below)).tolist())
