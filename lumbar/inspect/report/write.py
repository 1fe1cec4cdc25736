"""Write a cache as a page: all series, cached or left out, with labels, points, thumbnails."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumbar.cache.errors import LumbarError
from lumbar.cache.files.atomic import atomic_file
from lumbar.cache.labels import UNKNOWN, severities_of
from lumbar.cache.names import CONDITIONS, LEVELS, SEVERITIES
from lumbar.cache.store import Cache
from lumbar.inspect.annotated import SEVERITY_COLOURS, Point, points_by_series
from lumbar.inspect.report.page import page
from lumbar.inspect.report.thumbnails import Strip, bytes_each, draw_strip
from lumbar.inspect.selection import COLUMNS, all_series

MOST_TEXT = 300
"""Characters of a DICOM text that are shown."""

SHOWN = tuple(name for name in COLUMNS if name != "path")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StripDrawn:
    """The thumbnails of ``n_done`` of ``n_series`` series are drawn."""

    n_done: int
    n_series: int


@dataclass(frozen=True, slots=True)
class PageWritten:
    """The page is written."""

    n_series: int
    nbytes: int


def write_report(cache: Cache, out: Path) -> Iterator[StripDrawn | PageWritten]:
    """Write a cache as one HTML page that needs no network; yield events.

    A series whose volume cannot be read has no picture. The file appears when it is whole.

    Raises
    ------
    MissingError, FormatError
        If a table is absent or damaged.
    """
    table = all_series(cache)
    points = points_by_series(cache.coordinates, cache.labels)
    keys = cache.series.select("study_id", "series_id").rows()
    row_of = {key: row for row, key in enumerate(keys)}
    most_bytes = bytes_each(len(keys))
    rows: list[dict[str, Any]] = []
    thumbnails: list[bytes | None] = []
    for entry in table.iter_rows(named=True):
        key = entry["study_id"], entry["series_id"]
        strip = _draw(cache, row_of.get(key), points.get(key, []), most_bytes)
        rows.append(_row(entry, strip, points.get(key, [])))
        thumbnails.append(None if strip is None else strip.jpeg)
        yield StripDrawn(len(rows), table.height)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as file:
        file.writelines(part.encode() for part in page(_data(cache, rows), thumbnails))
    yield PageWritten(table.height, out.stat().st_size)


def _draw(cache: Cache, row: int | None, points: Sequence[Point], most_bytes: int) -> Strip | None:
    if row is None:
        return None
    try:
        return draw_strip(cache, row, {point.d for point in points}, most_bytes)
    except (LumbarError, OSError) as error:
        _log.warning("no picture: %s", error)
        return None


def _row(entry: dict[str, Any], strip: Strip | None, points: Sequence[Point]) -> dict[str, Any]:
    """Return the data of a series on the page."""
    row = {name: _short(entry[name]) for name in SHOWN}
    if strip is None:
        return row
    return row | {
        "slices": strip.d,
        "tile": (strip.width, strip.height),
        "points": [
            {
                "slice": strip.d.index(point.d),
                "x": round((point.w + 0.5) / entry["width"], 4),
                "y": round((point.h + 0.5) / entry["height"], 4),
                "name": point.name,
                "severity": point.severity,
            }
            for point in points
            if point.d in strip.d
        ],
    }


def _short(value: Any) -> Any:
    """Return a value for JSON: texts cut, numbers rounded, None for infinity and NaN."""
    if isinstance(value, str):
        return value if len(value) <= MOST_TEXT else value[:MOST_TEXT] + "…"
    if isinstance(value, list):
        return [_short(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _data(cache: Cache, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the data of the page; ``grades`` has a digit per cell, ``-`` for an unknown one."""
    digits = {UNKNOWN: "-"} | {code: str(code) for code in range(len(SEVERITIES))}
    severities = severities_of(cache.labels).tolist()
    studies = cache.labels["study_id"].to_list()
    return {
        "written_by": cache.description["lumbar_version"],
        "config": cache.description["config"],
        "series": rows,
        "grades": {
            study: "".join(digits[code] for code in codes)
            for study, codes in zip(studies, severities, strict=True)
        },
        "conditions": CONDITIONS,
        "levels": LEVELS,
        "severities": SEVERITIES,
        "colours": SEVERITY_COLOURS,
    }
