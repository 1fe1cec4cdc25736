"""One number as it is written to JSON: its name, unit, spread and target."""

from __future__ import annotations

from typing import Any, Literal

from lumbar.bench.measure.spread import Spread

ResultRow = dict[str, Any]


def row(
    name: str,
    spread: Spread | None,
    unit: str,
    *,
    target: float | None = None,
    wanted: Literal["at least", "at most", "below"] = "at least",
    **more: Any,
) -> ResultRow:
    """Return one result; a spread of None was not measured, and its ``met`` is None.

    ``met`` tells whether the median is ``wanted`` (at least, at most or below) the target. ``more``
    are further keys of the row.
    """
    met = None
    if target is not None and spread is not None:
        met = {
            "at least": spread.value >= target,
            "at most": spread.value <= target,
            "below": spread.value < target,
        }[wanted]
    return {
        "name": name,
        "value": spread and spread.value,
        "unit": unit,
        "target": target,
        "wanted": None if target is None else wanted,
        "met": met,
        "low": spread and spread.low,
        "high": spread and spread.high,
        **more,
    }
