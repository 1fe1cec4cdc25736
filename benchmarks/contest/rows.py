"""The results of `reader.py` as rows, with the targets that were named for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from contest.contestants import LUMBAR, ContestantKind
from contest.host import BATCH
from contest.rounds import Standing
from contest.waiting import STEP_MS
from lumbar.bench.measure.results import EndToEnd
from lumbar.bench.measure.rows import ResultRow, row
from lumbar.bench.measure.spread import Spread


def contestant_rows(standings: Sequence[Standing]) -> Iterator[ResultRow]:
    """Yield what each contestant came to by itself."""
    for one in standings:
        name = one.contestant.name
        more: dict[str, Any] = {"workers": one.workers, "label": one.contestant.label}
        yield row(f"{name}/volumes_per_second", one.speed, "volumes/s", **more)
        cpu = Spread.of([1000 * seconds for seconds in one.cpu_seconds])
        yield row(f"{name}/cpu_ms_a_volume", cpu, "CPU ms a volume", **more)


def ratio_rows(standings: Sequence[Standing]) -> Iterator[ResultRow]:
    """Yield lumbar beside the fastest of each kind, round by round."""
    own = fastest(standings, "lumbar")
    if own is None:
        return
    for kind, name, target in (
        ("library", "ratio_to_best_library", 4.0),
        ("opencv", "ratio_to_opencv_dataloader", 2.0),
        ("opencv_ring", "ratio_to_opencv_in_a_ring", 2.0),
        ("dicom", "ratio_to_pydicom_on_the_fly", 10.0),
    ):
        other = fastest(standings, kind)
        if other is None:
            continue
        speed = Spread.of_ratios(own.volumes_per_second, other.volumes_per_second)
        yield row(name, speed, "times", target=target, against=other.contestant.name)
        if kind == "library":
            cpu = Spread.of_ratios(own.cpu_seconds, other.cpu_seconds)
            yield row(
                "cpu_seconds_to_best_library",
                cpu,
                "times",
                target=1.0,
                wanted="below",
                against=other.contestant.name,
            )
    for one in standings:
        if one.contestant.name != LUMBAR:
            speed = Spread.of_ratios(own.volumes_per_second, one.volumes_per_second)
            yield row(f"ratio_to/{one.contestant.name}", speed, "times", workers=one.workers)


def host_rows(preparing: Iterable[tuple[str, Spread]]) -> Iterator[ResultRow]:
    """Yield what the host does for a step before any pixel is drawn."""
    for kind, cost in preparing:
        yield row(
            f"plan_and_prepare/{kind}",
            cost,
            "CPU ms a view",
            target=0.08,
            wanted="at most",
            batch=BATCH,
        )


def gathering_rows(ours: Spread, copied: Spread) -> Iterator[ResultRow]:
    """Yield how fast one thread gathers slices, and how fast numpy copies them."""
    yield row("gather_slices", ours, "GB/s a thread", target=8.0)
    yield row("numpy_copyto_of_the_same", copied, "GB/s a thread")


def waiting_rows(waiting: EndToEnd) -> Iterator[ResultRow]:
    """Yield waits and utilisation behind the simulated step."""
    step = f"simulated_{STEP_MS:g}_ms_step"
    yield row(f"{step}/wait_p50", waiting.wait_ms_p50, "ms", target=2.0, wanted="below")
    yield row(f"{step}/wait_p95", waiting.wait_ms_p95, "ms")
    yield row(f"{step}/accelerator_utilisation", waiting.au.times(100), "%", target=98.0)


def first_batch_rows(found: Sequence[dict[str, float]]) -> Iterator[ResultRow]:
    """Yield the first batch of fresh processes."""
    whole = Spread.of([one["from_process_start"] for one in found])
    yield row("first_batch/from_process_start", whole, "s", target=5.0, wanted="below")
    reader = Spread.of([one["from_reader"] for one in found])
    yield row("first_batch/from_reader_construction", reader, "s")


def memory_rows(found: Sequence[dict[str, float]], batches: int) -> Iterator[ResultRow]:
    """Yield how resident memory grows in long runs."""
    slope = Spread.of([one["slope"] for one in found])
    unit = "MB a thousand batches"
    yield row("memory/slope", slope, unit, target=1.0, wanted="below", batches=batches)
    yield row("memory/peak", Spread.of([one["peak"] for one in found]), "MB")


def fastest(standings: Sequence[Standing], kind: ContestantKind) -> Standing | None:
    """Return the fastest contestant of a kind."""
    found = [one for one in standings if one.contestant.kind == kind]
    return max(found, key=lambda one: one.speed.value, default=None)
