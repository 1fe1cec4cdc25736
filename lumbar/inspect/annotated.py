"""The annotated points of cached series, each with its name and severity as text."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lumbar.cache.labels import UNKNOWN, severities_of
from lumbar.cache.names import CONDITIONS, LEVELS, SEVERITIES, cell_index
from lumbar.cache.store import Cache

SHORT_NAMES = dict(
    zip(CONDITIONS, ("canal", "foramen L", "foramen R", "recess L", "recess R"), strict=True)
)
SEVERITY_COLOURS = {
    "normal/mild": "#4fc36b",
    "moderate": "#ffb000",
    "severe": "#ff4d4d",
    "unknown": "#c8c8c8",
}


@dataclass(frozen=True, slots=True)
class Point:
    """An annotated point on slice ``d``, with the severity of its cell as text."""

    d: int
    h: float
    w: float
    name: str
    severity: str


def points_of(cache: Cache, study_id: str, series_id: str) -> list[Point]:
    """Return the points of a series that lie in its cached volume."""
    mine = (pl.col("study_id") == study_id) & (pl.col("series_id") == series_id)
    labels = cache.labels.filter(pl.col("study_id") == study_id)
    return points_by_series(cache.coordinates.filter(mine), labels)[study_id, series_id]


def points_by_series(
    coordinates: pl.DataFrame, labels: pl.DataFrame
) -> defaultdict[tuple[str, str], list[Point]]:
    """Return the points of each series that lie in its cached volume, in the table's order."""
    severities = dict(zip(labels["study_id"], severities_of(labels), strict=True))
    found: defaultdict[tuple[str, str], list[Point]] = defaultdict(list)
    for entry in coordinates.drop_nulls(["d", "h", "w"]).iter_rows(named=True):
        point = _point(entry, severities.get(entry["study_id"]))
        found[entry["study_id"], entry["series_id"]].append(point)
    return found


def _point(entry: dict[str, Any], severities: np.ndarray | None) -> Point:
    """Return the point of a row of the coordinates table."""
    cell = cell_index(CONDITIONS.index(entry["condition"]), LEVELS.index(entry["level"]))
    index = UNKNOWN if severities is None else int(severities[cell])
    severity = "unknown" if index == UNKNOWN else SEVERITIES[index].replace("_", "/")
    level = entry["level"].upper().replace("_", "/")
    name = f"{level} {SHORT_NAMES[entry['condition']]}"
    return Point(round(entry["d"]), entry["h"], entry["w"], name, severity)
