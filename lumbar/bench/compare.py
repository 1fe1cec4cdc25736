"""Two benchmarks side by side: what became faster, what slower, and what nobody can tell.

A difference is claimed only where the spreads of the repeats do not touch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from lumbar.bench.report.schema import BenchFile, Context, Result

Outcome = Literal[
    "better", "worse", "changed", "the same", "within the spread", "no spread", "not measured"
]
"""``changed`` is a number that is neither good nor bad; ``no spread`` was measured once."""

MORE_IS_BETTER = {
    "accelerator_utilisation",
    "gpu_utilisation",
    "share_of_ceiling",
    "sm_activity",
    "tensor_activity",
}
LESS_IS_BETTER = {"data_stall"}
"""Last parts of names of which the unit does not say it."""

MORE_UNITS = {"volumes/s", "Mvoxel/s"}
LESS_UNITS = {
    "ms",
    "s",
    "J",
    "MB",
    "CPU ms a volume",
    "MB a thousand batches",
    "% of a core",
    "percentage points",
}

FORBIDDING = (
    "cpu",
    "cores",
    "gpu",
    "gpu_driver",
    "data",
    "series_type",
    "series",
    "volumes",
    "mean_slices",
    "stored",
    "batch",
    "box",
    "augment",
    "run_config",
    "versions",
)
"""What has to be equal for a plain comparison; of a table each key."""


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One number of both files; ``ratio`` is b / a, None where it would mean nothing."""

    a: Result
    b: Result
    ratio: float | None
    outcome: Outcome

    def cells(self) -> tuple[str, ...]:
        """Return it as the texts of a table: name, unit, a, b, b / a, outcome."""
        ratio = "" if self.ratio is None else f"{self.ratio:.3f}"
        return self.a.name, self.a.unit, _text(self.a), _text(self.b), ratio, self.outcome


HEADER = ("result", "unit", "a", "b", "b / a", "b is")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two benchmarks; ``notes`` say what differs but the numbers, and forbid a plain comparison."""

    a: str
    b: str
    rows: tuple[ComparedRow, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    notes: tuple[str, ...]

    def to_markdown(self) -> str:
        """Return both titles, the notes, a table and the names that are in one file alone."""
        lines = [f"a: {self.a}", "", f"b: {self.b}", ""]
        if self.notes:
            lines += ["Not a plain comparison:", "", *(f"- {note}" for note in self.notes), ""]
        lines += [_line(HEADER), "|" + "---|" * len(HEADER)]
        lines += [_line(row.cells()) for row in self.rows]
        for where, names in (("a", self.only_in_a), ("b", self.only_in_b)):
            if names:
                lines += ["", f"Only in {where}:", "", *(f"- {name}" for name in names)]
        return "\n".join(lines) + "\n"


def compare(a: BenchFile, b: BenchFile) -> Comparison:
    """Set the results of two benchmarks side by side, in the order of the first."""
    in_a = {result.name: result for result in a.results}
    in_b = {result.name: result for result in b.results}
    both = [(one, in_b[name]) for name, one in in_a.items() if name in in_b]
    rows = [_row(one, other) for one, other in both if one.unit == other.unit]
    return Comparison(
        a=_title(a.context),
        b=_title(b.context),
        rows=tuple(rows),
        only_in_a=tuple(name for name in in_a if name not in in_b),
        only_in_b=tuple(name for name in in_b if name not in in_a),
        notes=(
            *_context_notes(a.context, b.context),
            *(
                f"{one.name}: {one.unit} in a, {other.unit} in b"
                for one, other in both
                if one.unit != other.unit
            ),
        ),
    )


def direction(result: Result) -> Literal["more", "less"] | None:
    """Return which is better of a number, or None where neither is."""
    wanted = (result.model_extra or {}).get("wanted")
    if wanted in {"at least", "below"}:
        return "more" if wanted == "at least" else "less"
    parts = result.name.split("/")
    if parts[-1] in MORE_IS_BETTER or any(part.startswith("ratio_to") for part in parts):
        return "more"
    if parts[-1] in LESS_IS_BETTER or result.unit in LESS_UNITS:
        return "less"
    return "more" if result.unit in MORE_UNITS else None


def _row(a: Result, b: Result) -> ComparedRow:
    ratio = None
    if a.value is not None and b.value is not None and a.value > 0 and b.value >= 0:
        ratio = b.value / a.value
    return ComparedRow(a, b, ratio, _outcome(a, b))


def _outcome(a: Result, b: Result) -> Outcome:
    if a.value is None or b.value is None:
        return "not measured"
    if a.value == b.value:
        return "the same"
    if not (_has_spread(a) and _has_spread(b)):
        return "no spread"
    if _touch(a, b):
        return "within the spread"
    better = direction(a)
    if better is None:
        return "changed"
    return "better" if (b.value > a.value) == (better == "more") else "worse"


def _has_spread(result: Result) -> bool:
    """Return whether it was measured more than once: one measurement has no width."""
    return result.low is not None and result.low != result.high


def _touch(a: Result, b: Result) -> bool:
    """Return whether two spreads share a number; a median may lie outside of its own."""
    spans = []
    for result in (a, b):
        assert result.value is not None
        assert result.low is not None
        assert result.high is not None
        spans.append((min(result.low, result.value), max(result.high, result.value)))
    (low_a, high_a), (low_b, high_b) = spans
    return low_a <= high_b and low_b <= high_a


def _context_notes(a: Context, b: Context) -> Iterator[str]:
    in_a, in_b = a.model_dump(), b.model_dump()
    for key in FORBIDDING:
        flat_a, flat_b = dict(_flat(key, in_a.get(key))), dict(_flat(key, in_b.get(key)))
        for name in sorted(flat_a.keys() | flat_b.keys()):
            one, other = flat_a.get(name), flat_b.get(name)
            if one != other:
                yield f"{name}: {_said(one)} in a, {_said(other)} in b"


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted names and values of a table within tables; None is not there."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif value is not None:
        yield name, value


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


def _title(context: Context) -> str:
    version = context.versions.get("lumbar", "of no version")
    return f"lumbar {version}, {context.date}, {context.cpu}, GPU: {context.gpu or 'none'}"


def _text(result: Result) -> str:
    if result.value is None:
        return "not measured"
    if result.low is None or result.high is None:
        return _digits(result.value)
    return f"{_digits(result.value)} ({_digits(result.low)}-{_digits(result.high)})"


def _digits(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
