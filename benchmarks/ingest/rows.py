"""Results as rows: seconds become files a second and ratios, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ingest.files import SeriesKind
from lumbar.bench.measure.rows import ResultRow, row
from lumbar.bench.measure.spread import Spread

FLOOR, LUMBAR = "floor", "lumbar"
MAX_MEMORY_MB = 400.0
LEAST_SCALING = 0.9

Seconds = Mapping[str, Sequence[float]]
"""Of each contestant, one number a round."""


def kind_rows(
    kind: SeriesKind, seconds: Seconds, n_files: int, *, cold: bool
) -> Iterator[ResultRow]:
    """Yield lumbar over the floor, each peer over lumbar, and everyone's files a second.

    The target is for files in the page cache: where storage is slower, the ratio only falls.
    """
    start = f"cold/{kind.name}" if cold else kind.name
    own = seconds[LUMBAR]
    if FLOOR in seconds:
        over = Spread.of_ratios(own, seconds[FLOOR])
        limit = None if cold else kind.limit
        yield row(f"{start}/wall_over_floor", over, "times", target=limit, wanted="at most")
    for name, taken in seconds.items():
        if name not in {FLOOR, LUMBAR}:
            yield row(f"{start}/{name}_over_lumbar", Spread.of_ratios(taken, own), "times")
    for name, taken in seconds.items():
        speed = Spread.of([n_files / each for each in taken])
        yield row(f"{start}/{name}/files_per_second", speed, "files/s")
        each_ms = Spread.of([1000 * each / n_files for each in taken])
        yield row(f"{start}/{name}/wall_a_file", each_ms, "ms")


def memory_row(megabytes: Sequence[float]) -> ResultRow:
    """Return the peak of a worker."""
    spread = Spread.of(megabytes)
    return row("memory_per_worker/peak", spread, "MB", target=MAX_MEMORY_MB, wanted="below")


def scaling_rows(alone: Seconds, together: Seconds, workers: int) -> Iterator[ResultRow]:
    """Yield the share of ``workers`` times one worker's speed that lumbar and the floor reach."""
    for name, target in ((LUMBAR, LEAST_SCALING), (FLOOR, None)):
        share = Spread.of_ratios([each / workers for each in alone[name]], together[name])
        yield row(f"scaling/{name}", share, "of linear", target=target, workers=workers)


def decoder_rows(kind: SeriesKind, times_ms: Mapping[str, float]) -> Iterator[ResultRow]:
    """Yield what each decoder takes with the reading of its file; the least is the floor's."""
    for name, each in times_ms.items():
        one = Spread.of([each])
        yield row(f"{kind.name}/decoder/{name}", one, "ms a file", least_of=5)
