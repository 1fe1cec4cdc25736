"""Group the slices of a series that are parallel, or nearly so.

Directions differ within a stack by rounding, or because the stack was acquired in passes that are
turned a little. They differ between stacks on purpose. The distances between the directions decide,
and whether the slices of one pass fill the gaps of another; the order of the files never does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from lumbar.pipeline.dicom.header import SliceHeader, Triple
from lumbar.pipeline.geometry.orient import POSITION_TOLERANCE_MM, centre_of, normal_of

ORIENTATION_TOLERANCE_DEGREES = 0.1
"""Slices have one orientation if rows and columns agree within this: 0.3 mm at 160 mm."""

SPREAD_DEGREES = 0.5
"""Largest angle between a slice and the mean of its stack: 1.4 mm at 160 mm."""

ADJACENT_DEGREES = 0.3
"""Neighbouring stacks at one step are one stack if the angle between them is at most this."""

LINKS = 4.0
"""A direction is linked to its nearest one within this many times the usual distance."""

LEAST_STEP = 0.6
"""Slices fill the gaps of others if every step is at least this share of the usual step."""

Directions = tuple[Triple, Triple]


@dataclass(frozen=True, slots=True)
class ParallelSlices:
    """Slices of one orientation, sorted by ``turn``.

    ``mean`` has their mean row and column direction; ``spread_degrees`` is the largest angle
    between a slice and it.
    """

    headers: tuple[SliceHeader, ...]
    mean: Directions
    spread_degrees: float

    @classmethod
    def of(cls, headers: Sequence[SliceHeader]) -> ParallelSlices:
        """Make one group of slices of any directions."""
        ordered = tuple(sorted(headers, key=lambda h: h.turn))
        mean = _mean_directions(ordered)
        spread = max(_distance(_directions_of(header), mean) for header in ordered)
        return cls(ordered, mean, _degrees(spread))

    @property
    def frame(self) -> SliceHeader:
        """A header with the mean direction, which represents all slices."""
        return replace(self.headers[0], row_direction=self.mean[0], column_direction=self.mean[1])

    @property
    def is_exact(self) -> bool:
        """Whether all slices have exactly the same direction."""
        return self.spread_degrees == 0.0

    @property
    def is_joined(self) -> bool:
        """Whether a slice differs from the first one by more than rounding."""
        first = _directions_of(self.headers[0])
        limit = _chord(ORIENTATION_TOLERANCE_DEGREES)
        return not self.is_exact and any(
            _distance(first, _directions_of(header)) > limit for header in self.headers
        )

    @property
    def is_even(self) -> bool:
        """Whether the slices differ only by rounding."""
        return self.spread_degrees <= ORIENTATION_TOLERANCE_DEGREES


def group_parallel(headers: Sequence[SliceHeader]) -> list[ParallelSlices]:
    """Return the slices in groups of one orientation.

    Slices whose directions are linked by small distances are one group. Groups whose slices fill
    each other's gaps, or follow each other at one step, are joined. No group spreads wider than
    `SPREAD_DEGREES`. The result does not depend on the order of ``headers``.
    """
    members: dict[Directions, list[SliceHeader]] = {}
    for header in sorted(headers, key=lambda h: h.turn):
        members.setdefault(_directions_of(header), []).append(header)
    if len(members) == 1:
        return [ParallelSlices.of(headers)]
    directions = sorted(members)
    linked = _linked(directions, len(headers))
    groups = [[header for d in link for header in members[d]] for link in linked]
    return sorted(_join(list(map(ParallelSlices.of, groups))), key=lambda one: one.headers[0].turn)


def straighten(group: ParallelSlices, axis: Float[np.ndarray, "3"]) -> list[SliceHeader]:
    """Return the slices with the mean direction, each turned about a fixed point.

    The point is the centre, the corner or the foot of the isocentre, whichever leaves the steps
    along ``axis`` most even: scanners tilt slices about one of these.
    """
    row, column = (np.array(direction) for direction in group.mean)
    origin = _mean([header.position_lps for header in group.headers])
    foot = -float(origin @ row), -float(origin @ column)
    turned: list[tuple[float, int, list[SliceHeader]]] = []
    for pivots in (
        [_centre_pixel_mm(header) for header in group.headers],
        [(0.0, 0.0)] * len(group.headers),
        [foot] * len(group.headers),
    ):
        straight = [
            _turn_about(h, p, group.mean) for h, p in zip(group.headers, pivots, strict=True)
        ]
        turned.append((_unevenness_mm(straight, axis), len(turned), straight))
    return min(turned, key=lambda one: (round(one[0], 6), one[1]))[2]


def tilt_mm(group: ParallelSlices) -> float:
    """Return how far the spread of directions moves a corner of a slice, 0 for rounding only."""
    if group.is_even:
        return 0.0
    half_mm = max(math.hypot(*_centre_pixel_mm(header)) for header in group.headers)
    return math.radians(group.spread_degrees) * half_mm


def _linked(directions: Sequence[Directions], n_slices: int) -> list[list[Directions]]:
    """Split directions where the distance to the nearest one is long compared with the usual."""
    edges = _spanning_tree(np.array(directions).reshape(len(directions), 6))
    lengths = sorted([0.0] * (n_slices - len(directions)) + [length for length, _, _ in edges])
    usual = lengths[(len(lengths) - 1) // 2]
    limit = min(max(LINKS * usual, _chord(ORIENTATION_TOLERANCE_DEGREES)), _chord(SPREAD_DEGREES))
    short = sorted(edge for edge in edges if edge[0] <= limit)
    waiting = _components(range(len(directions)), short)
    found = []
    while waiting:
        numbers, inner = waiting.pop()
        part = [directions[number] for number in numbers]
        if inner and _spread(part) > _chord(SPREAD_DEGREES):
            waiting.extend(_components(numbers, inner[:-1]))
        else:
            found.append(part)
    return found


Edge = tuple[float, int, int]


def _spanning_tree(points: Float[np.ndarray, "n 6"]) -> list[Edge]:
    """Return the edges of the minimum spanning tree over directions (Prim 1957), with lengths."""
    nearest = np.full(len(points), np.inf)
    parent = np.zeros(len(points), int)
    outside = np.ones(len(points), bool)
    edges: list[Edge] = []
    last = 0
    for _ in range(len(points) - 1):
        outside[last] = False
        distance = _distances(points, points[last])
        closer = outside & (distance < nearest)
        nearest[closer], parent[closer] = distance[closer], last
        last = int(np.where(outside, nearest, np.inf).argmin())
        edges.append((float(nearest[last]), int(parent[last]), last))
    return edges


def _components(
    numbers: Sequence[int], edges: Sequence[Edge]
) -> list[tuple[list[int], list[Edge]]]:
    """Return the connected components of a forest, each with its edges by length."""
    root = {number: number for number in numbers}

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = number = root[root[number]]
        return number

    for _, one, other in edges:
        root[find(one)] = find(other)
    parts: dict[int, tuple[list[int], list[Edge]]] = {}
    for number in numbers:
        parts.setdefault(find(number), ([], []))[0].append(number)
    for edge in edges:
        parts[find(edge[1])][1].append(edge)
    return list(parts.values())


def _join(groups: list[ParallelSlices]) -> list[ParallelSlices]:
    """Join groups that are one stack, the largest first, until no two are."""
    while True:
        joined: list[ParallelSlices] = []
        for group in sorted(groups, key=_rank):
            for number, other in enumerate(joined):
                both = _as_one(other, group)
                if both is not None:
                    joined[number] = both
                    break
            else:
                joined.append(group)
        if len(joined) == len(groups):
            return joined
        groups = joined


def _rank(group: ParallelSlices) -> tuple[object, ...]:
    """Order groups by their size, direction and positions, not by their files."""
    return -len(group.headers), group.mean, sorted(h.position_lps for h in group.headers)


def _as_one(one: ParallelSlices, other: ParallelSlices) -> ParallelSlices | None:
    """Return two groups joined to one stack, or None if they are two stacks."""
    apart = _degrees(_distance(one.mean, other.mean))
    if apart > 2 * SPREAD_DEGREES:
        return None
    both = ParallelSlices.of([*one.headers, *other.headers])
    if both.spread_degrees > SPREAD_DEGREES:
        return None
    normal = normal_of(both.frame)
    places, others = (_places_mm(group.headers, normal) for group in (one, other))
    union = np.sort(np.concatenate([places, others]))
    steps = np.diff(union)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    if usual <= POSITION_TOLERANCE_MM or steps.min() < LEAST_STEP * usual:
        return None
    if _share_inside(places, others) >= 0.5 or _share_inside(others, places) >= 0.5:
        return both
    seam = max(places[0] - others[-1], others[0] - places[-1])
    is_next = LEAST_STEP * usual <= seam <= (2 - LEAST_STEP) * usual
    return both if is_next and apart <= ADJACENT_DEGREES else None


def _places_mm(
    headers: Sequence[SliceHeader], normal: Float[np.ndarray, "3"]
) -> Float[np.ndarray, " n"]:
    """Return the sorted positions of slices along a normal, each once."""
    places = np.sort([float(centre_of(header) @ normal) for header in headers])
    first: Float[np.ndarray, " n"] = places[
        np.diff(places, prepend=-np.inf) > POSITION_TOLERANCE_MM
    ]
    return first


def _share_inside(places: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]) -> float:
    """Return the share of positions between the first and the last of others."""
    return float(((places > others[0]) & (places < others[-1])).mean())


def _turn_about(
    header: SliceHeader, pivot_mm: tuple[float, float], mean: Directions
) -> SliceHeader:
    """Turn a slice to another direction about the point ``pivot_mm`` along its row and column."""
    moved = (
        np.array(header.position_lps)
        + (np.array(header.row_direction) - mean[0]) * pivot_mm[0]
        + (np.array(header.column_direction) - mean[1]) * pivot_mm[1]
    )
    x, y, z = map(float, moved)
    return replace(header, position_lps=(x, y, z), row_direction=mean[0], column_direction=mean[1])


def _unevenness_mm(headers: Sequence[SliceHeader], axis: Float[np.ndarray, "3"]) -> float:
    """Return the largest difference of a step along an axis from a multiple of the usual one."""
    steps = np.diff(_places_mm(headers, axis))
    if len(steps) < 2:
        return 0.0
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    return float(np.abs(steps - np.rint(steps / usual) * usual).max())


def _centre_pixel_mm(header: SliceHeader) -> tuple[float, float]:
    return (
        header.column_spacing_mm * (header.columns - 1) / 2,
        header.row_spacing_mm * (header.rows - 1) / 2,
    )


def _directions_of(header: SliceHeader) -> Directions:
    return header.row_direction, header.column_direction


def _mean_directions(headers: Sequence[SliceHeader]) -> Directions:
    """Return the mean row direction, and the mean column direction perpendicular to it."""
    if len({_directions_of(header) for header in headers}) == 1:
        return _directions_of(headers[0])
    row = _mean([header.row_direction for header in headers])
    row /= np.linalg.norm(row)
    column = _mean([header.column_direction for header in headers])
    column -= row * (column @ row)
    column /= np.linalg.norm(column)
    return _triple(row), _triple(column)


def _mean(vectors: Sequence[Triple]) -> Float[np.ndarray, "3"]:
    """Return a mean whose bits do not depend on the order."""
    return np.array([math.fsum(values) / len(vectors) for values in zip(*vectors, strict=True)])


def _triple(vector: Float[np.ndarray, "3"]) -> Triple:
    x, y, z = map(float, vector)
    return x, y, z


def _spread(directions: Sequence[Directions]) -> float:
    """Return the largest distance of a direction from the mean of all."""
    points = np.array(directions).reshape(len(directions), 6)
    return float(_distances(points, points.mean(axis=0)).max())


def _distances(
    points: Float[np.ndarray, "n 6"], point: Float[np.ndarray, "6"]
) -> Float[np.ndarray, " n"]:
    """Return for each point the greater distance of row and column direction from another."""
    apart = points - point
    greater: Float[np.ndarray, " n"] = np.maximum(
        np.linalg.norm(apart[:, :3], axis=1), np.linalg.norm(apart[:, 3:], axis=1)
    )
    return greater


def _distance(one: Directions, other: Directions) -> float:
    return max(math.dist(one[0], other[0]), math.dist(one[1], other[1]))


def _chord(degrees: float) -> float:
    return 2 * math.sin(math.radians(degrees) / 2)


def _degrees(chord: float) -> float:
    return math.degrees(2 * math.asin(min(chord / 2, 1.0)))
