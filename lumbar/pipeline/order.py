"""The slices of a series in their order in the patient, whatever their numbers and names say.

`order_slices` reads as its steps: one plane, stacks of one orientation, along the normal, one image
a position, stacks from superior to inferior.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from lumbar.pipeline.flags import Flag, Notes
from lumbar.pipeline.header import SliceHeader
from lumbar.pipeline.orient import CANONICAL_AXES, Plane, nearest_plane, normal_of, slice_axis
from lumbar.pipeline.reject import Reason

ORIENTATION_TOLERANCE_DEGREES = 0.1
"""Slices are of one orientation if rows and columns agree within this: 0.3 mm at 160 mm."""

STEEP_AXIAL_DEGREES = 60.0
"""How far an axial stack may be tilted towards the coronal plane. The lumbosacral disc is tilted up
to 50 degrees, so that its stack is nearer to coronal; the patient's sides stay where they were. In
all other directions a stack lies in its nearest plane alone: a sagittal or an axial one that is
turned further has its sides along another axis than the rest of its series."""

POSITION_TOLERANCE_MM = 0.1
"""Centres nearer than this are one position; a tenth of the thinnest slices in use."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A slice that is not cached, and why."""

    header: SliceHeader
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """The slices in their final order, and those left out; ``groups`` numbers orientations."""

    plane: Plane
    headers: tuple[SliceHeader, ...]
    groups: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    notes: Notes = field(default_factory=dict)

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What is unusual about the order."""
        return tuple(self.notes)


def order_slices(headers: Sequence[SliceHeader], wanted: Plane | None) -> Ordered:
    """Order the slices of a series; ``wanted`` is the plane that the CSV says, where it does.

    The result does not depend on the order of ``headers``.
    """
    if not headers:
        return Ordered(wanted or Plane.SAGITTAL, (), (), ())
    plane = choose_plane(headers, wanted)
    inside, outside = split_by_plane(headers, plane)
    stacks = [sort_along_normal(stack, plane) for stack in group_by_orientation(inside)]
    kept, repeated = [], []
    for stack in stacks:
        first, later = drop_repeats(stack, plane)
        kept.append(first)
        repeated.extend(later)
    kept.sort(key=lambda stack: -float(np.mean([centre_of(header)[2] for header in stack])))
    return Ordered(
        plane,
        tuple(header for stack in kept for header in stack),
        tuple(number for number, stack in enumerate(kept) for _ in stack),
        (*outside, *repeated),
        _notes(plane, wanted, kept, outside, repeated),
    )


def choose_plane(headers: Sequence[SliceHeader], wanted: Plane | None) -> Plane:
    """Return the wanted plane if most slices can lie in it, else the plane of most slices."""
    if wanted is not None and sum(_lies_in(h, wanted) for h in headers) * 2 > len(headers):
        return wanted
    counts = Counter(nearest_plane(header) for header in headers)
    return max(Plane, key=lambda plane: counts[plane])


def split_by_plane(
    headers: Sequence[SliceHeader], plane: Plane
) -> tuple[list[SliceHeader], list[LeftOut]]:
    """Part the slices that can lie in a plane from those that cannot."""
    inside = [header for header in headers if _lies_in(header, plane)]
    outside = [
        LeftOut(header, Reason.OTHER_PLANE, f"{nearest_plane(header)} in a series taken as {plane}")
        for header in headers
        if not _lies_in(header, plane)
    ]
    return inside, outside


def group_by_orientation(headers: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Return the slices in groups whose directions agree within the tolerance."""
    limit = 2 * math.sin(math.radians(ORIENTATION_TOLERANCE_DEGREES) / 2)
    groups: list[tuple[SliceHeader, list[SliceHeader]]] = []
    for header in sorted(headers, key=lambda h: h.turn):
        for first, members in groups:
            if _direction_distance(first, header) <= limit:
                members.append(header)
                break
        else:
            groups.append((header, [header]))
    return [members for _, members in groups]


def sort_along_normal(headers: Sequence[SliceHeader], plane: Plane) -> list[SliceHeader]:
    """Sort slices of one orientation the way in which D grows in the plane."""
    axis = slice_axis(headers[0], plane)
    return sorted(headers, key=lambda h: (float(centre_of(h) @ axis), h.turn))


def drop_repeats(
    headers: Sequence[SliceHeader], plane: Plane
) -> tuple[list[SliceHeader], list[LeftOut]]:
    """Keep one image a position, the first in turn, of slices sorted along their normal."""
    kept: list[SliceHeader] = []
    left_out: list[LeftOut] = []
    for cluster in _clusters(headers, plane):
        taken: list[SliceHeader] = []
        for header in sorted(cluster, key=lambda h: h.turn):
            twin = next((t for t in taken if _is_same_position(t, header)), None)
            if twin is None:
                taken.append(header)
            else:
                detail = f"image {header.instance_number} repeats image {twin.instance_number}"
                left_out.append(LeftOut(header, Reason.REPEATED_POSITION, detail))
        kept.extend(sort_along_normal(taken, plane))
    return kept, left_out


def centre_of(header: SliceHeader) -> Float[np.ndarray, "3"]:
    """Return the centre of a slice in patient millimetres."""
    return (
        np.array(header.position_lps)
        + np.array(header.row_direction) * (header.column_spacing_mm * (header.columns - 1) / 2)
        + np.array(header.column_direction) * (header.row_spacing_mm * (header.rows - 1) / 2)
    )


def _notes(
    plane: Plane,
    wanted: Plane | None,
    stacks: Sequence[Sequence[SliceHeader]],
    outside: Sequence[LeftOut],
    repeated: Sequence[LeftOut],
) -> Notes:
    notes: Notes = {}
    if wanted not in {None, plane}:
        notes[Flag.PLANE_DISAGREES] = f"{wanted} by the CSV, {plane} by the header"
    if len(stacks) > 1:
        normals = np.array([normal_of(stack[0]) for stack in stacks])
        cosine = float(np.abs(normals @ normals.T).min())
        widest = math.degrees(math.acos(min(cosine, 1.0)))
        notes[Flag.SEVERAL_ORIENTATIONS] = (
            f"{len(stacks)} orientations, normals up to {widest:.1f} degrees apart"
        )
    if outside:
        counts = Counter(nearest_plane(left_out.header) for left_out in outside)
        notes[Flag.OTHER_PLANES] = ", ".join(f"{counts[p]} {p}" for p in Plane if counts[p])
    if repeated:
        n_kept = sum(map(len, stacks))
        notes[Flag.REPEATED_POSITIONS] = f"{n_kept + len(repeated)} images of {n_kept} positions"
    return notes


def _clusters(headers: Sequence[SliceHeader], plane: Plane) -> list[list[SliceHeader]]:
    """Part sorted slices wherever the next one is farther along the normal than the tolerance."""
    axis = slice_axis(headers[0], plane)
    positions = [float(centre_of(header) @ axis) for header in headers]
    clusters = [[headers[0]]]
    for (here, there), header in zip(pairwise(positions), headers[1:], strict=True):
        if there - here < POSITION_TOLERANCE_MM:
            clusters[-1].append(header)
        else:
            clusters.append([header])
    return clusters


def _is_same_position(one: SliceHeader, other: SliceHeader) -> bool:
    return bool(np.linalg.norm(centre_of(one) - centre_of(other)) < POSITION_TOLERANCE_MM)


def _lies_in(header: SliceHeader, plane: Plane) -> bool:
    """Tell if a plane is a slice's nearest, or axial and the slice a steep one."""
    nearest = nearest_plane(header)
    if (plane, nearest) != (Plane.AXIAL, Plane.CORONAL):
        return nearest == plane
    cosine = abs(float(normal_of(header) @ CANONICAL_AXES[plane][0]))
    return cosine >= math.cos(math.radians(STEEP_AXIAL_DEGREES))


def _direction_distance(one: SliceHeader, other: SliceHeader) -> float:
    return max(
        math.dist(one.row_direction, other.row_direction),
        math.dist(one.column_direction, other.column_direction),
    )
