"""Results as rows: a number, its spread, and the target that somebody named for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from lumbar.bench.measure.spread import Spread
from peers.contestants import LUMBAR, Kind
from peers.host import BATCH
from peers.measure import Standing, ratio
from peers.waiting import STEP_MS, Waiting

Row = dict[str, Any]


def row(
    name: str,
    spread: Spread,
    unit: str,
    *,
    target: float | None = None,
    wanted: Literal["at least", "below", "at most"] = "at least",
    **more: Any,
) -> Row:
    """Return one result; ``met`` says whether its median reaches the target."""
    reached = None
    if target is not None:
        reached = {
            "at least": spread.value >= target,
            "at most": spread.value <= target,
            "below": spread.value < target,
        }[wanted]
    return {
        "name": name,
        "value": spread.value,
        "unit": unit,
        "target": target,
        "wanted": wanted if target is not None else None,
        "met": reached,
        "low": spread.low,
        "high": spread.high,
        **more,
    }


def contestant_rows(standings: Sequence[Standing]) -> Iterator[Row]:
    """Yield what each contestant came to by itself."""
    for one in standings:
        name = one.contestant.name
        more: dict[str, Any] = {"workers": one.workers, "label": one.contestant.label}
        yield row(f"{name}/volumes_per_second", one.speed, "volumes/s", **more)
        cpu = Spread.of([1000 * seconds for seconds in one.cpu_seconds])
        yield row(f"{name}/cpu_ms_a_volume", cpu, "CPU ms a volume", **more)


def ratio_rows(standings: Sequence[Standing]) -> Iterator[Row]:
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
        speed = ratio(own.volumes_per_second, other.volumes_per_second)
        yield row(name, speed, "times", target=target, against=other.contestant.name)
        if kind == "library":
            cpu = ratio(own.cpu_seconds, other.cpu_seconds)
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
            speed = ratio(own.volumes_per_second, one.volumes_per_second)
            yield row(f"ratio_to/{one.contestant.name}", speed, "times", workers=one.workers)


def host_rows(preparing: Iterable[tuple[str, Spread]]) -> Iterator[Row]:
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


def gathering_rows(ours: Spread, copied: Spread) -> Iterator[Row]:
    """Yield how fast one thread gathers slices, and how fast numpy copies them."""
    yield row("gather_slices", ours, "GB/s a thread", target=8.0)
    yield row("numpy_copyto_of_the_same", copied, "GB/s a thread")


def waiting_rows(waiting: Waiting) -> Iterator[Row]:
    """Yield waits and utilisation behind the simulated step."""
    step = f"simulated_{STEP_MS:g}_ms_step"
    yield row(f"{step}/wait_p50", waiting.p50_ms, "ms", target=2.0, wanted="below")
    yield row(f"{step}/wait_p95", waiting.p95_ms, "ms")
    percent = Spread(100 * waiting.au.value, 100 * waiting.au.low, 100 * waiting.au.high)
    yield row(f"{step}/accelerator_utilisation", percent, "%", target=98.0)


def first_batch_rows(found: Sequence[dict[str, float]]) -> Iterator[Row]:
    """Yield the first batch of fresh processes."""
    whole = Spread.of([one["from_process_start"] for one in found])
    yield row("first_batch/from_process_start", whole, "s", target=5.0, wanted="below")
    reader = Spread.of([one["from_reader"] for one in found])
    yield row("first_batch/from_reader_construction", reader, "s")


def memory_rows(found: Sequence[dict[str, float]], batches: int) -> Iterator[Row]:
    """Yield how resident memory grows in long runs."""
    slope = Spread.of([one["slope"] for one in found])
    unit = "MB a thousand batches"
    yield row("memory/slope", slope, unit, target=1.0, wanted="below", batches=batches)
    yield row("memory/peak", Spread.of([one["peak"] for one in found]), "MB")


def fastest(standings: Sequence[Standing], kind: Kind) -> Standing | None:
    """Return the fastest contestant of a kind."""
    found = [one for one in standings if one.contestant.kind == kind]
    return max(found, key=lambda one: one.speed.value, default=None)


def to_markdown(context: dict[str, Any], rows: Sequence[Row], *, title: str) -> str:
    """Return the results as a page: those with a target first."""
    lines = [f"- {key}: {_text(value)}" for key, value in context.items()]
    for heading, chosen in (
        ("Targets", [one for one in rows if one["target"] is not None]),
        ("All other numbers", [one for one in rows if one["target"] is None]),
    ):
        lines += ["", f"## {heading}", "", "| result | median (least - greatest) | target | met |"]
        lines += ["|---|---|---|---|"]
        lines += [f"| {' | '.join(cells(one))} |" for one in chosen]
    return "\n".join([f"# {title}", "", *lines]) + "\n"


def cells(one: Row) -> tuple[str, str, str, str]:
    """Return a result as the texts of a table: name, value, target, whether it is met."""
    more = ", ".join(
        f"{key} {one[key]}" for key in ("workers", "against", "batch") if one.get(key) is not None
    )
    name = f"{one['name']} ({more})" if more else one["name"]
    value = f"{one['value']:.4g} ({one['low']:.4g} - {one['high']:.4g}) {one['unit']}"
    if one["target"] is None:
        return name, value, "", ""
    return name, value, f"{one['wanted']} {one['target']:g}", "yes" if one["met"] else "no"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    return str(value)
