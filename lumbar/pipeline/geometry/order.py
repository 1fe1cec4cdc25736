"""The slices of a series in their order in the patient, independent of their numbers and names.

`order_slices` reads as its steps: group slices of one orientation, choose one plane, sort along the
normal, keep one image per position, and order the stacks in the direction in which D grows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from lumbar.pipeline.dicom.header import SliceHeader
from lumbar.pipeline.flags import Flag, Notes
from lumbar.pipeline.geometry.orient import (
    CANONICAL_AXES,
    POSITION_TOLERANCE_MM,
    InPlane,
    OrientedSlice,
    Plane,
    centre_of,
    choose_in_plane,
    choose_in_planes,
    nearest_plane,
    normal_of,
    orient,
    slice_axis,
)
from lumbar.pipeline.geometry.parallel_slices import (
    ParallelSlices,
    group_parallel,
    straighten,
    tilt_mm,
)
from lumbar.pipeline.reject import Reason

STEEP_AXIAL_DEGREES = 60.0
"""Largest tilt of an axial stack towards the coronal plane. The lumbosacral disc is tilted by up to
50 degrees, so its stack is nearer to coronal, but left and right stay on the same axis. In all
other directions a stack belongs only to its nearest plane: left and right of a sagittal or axial
stack that is turned further lie along another axis than in the rest of its series."""

BETWEEN_PLANES_DEGREES = 5.0
"""Stacks within this angle of a stack in the plane of the series belong to it too: half way between
two planes the nearest one differs from stack to stack."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A slice that is not cached, and why."""

    header: SliceHeader
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """The slices in their final order, and those left out; ``groups`` numbers orientations.

    ``straight`` are the same slices with the mean direction of their stack; ``slack_mm`` is how far
    that moves a corner, and ``in_planes`` how each picture is turned. ``is_revised``: caches of
    revision 2 have another order or other axes.
    """

    plane: Plane
    headers: tuple[SliceHeader, ...]
    groups: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    notes: Notes = field(default_factory=dict)
    straight: tuple[SliceHeader, ...] = ()
    in_planes: tuple[InPlane, ...] = ()
    slack_mm: tuple[float, ...] = ()
    is_revised: bool = False

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The flags of the order."""
        return tuple(self.notes)

    @property
    def oriented(self) -> list[OrientedSlice]:
        """The slices after each is turned to the canonical axes."""
        return [orient(h, one) for h, one in zip(self.straight, self.in_planes, strict=True)]

    @property
    def d_axes_lps(self) -> Float[np.ndarray, "d 3"]:
        """The unit normal of each slice in the direction in which D grows."""
        return np.array([slice_axis(header, self.plane) for header in self.straight])


@dataclass(frozen=True, slots=True)
class _SortedStack:
    """A stack of one orientation in order: its slices as read, and straightened."""

    group: ParallelSlices
    headers: list[SliceHeader]
    straight: list[SliceHeader]


def order_slices(headers: Sequence[SliceHeader], wanted: Plane | None) -> Ordered:
    """Order the slices of a series; ``wanted`` is the plane of the CSV's type, if there is one.

    The result does not depend on the order of ``headers``.
    """
    if not headers:
        return Ordered(wanted or Plane.SAGITTAL, (), (), ())
    groups = group_parallel(headers)
    plane = choose_plane(groups, wanted)
    inside, outside = split_by_plane(groups, plane)
    kept, repeated = [], []
    for group in inside:
        stack, later = _sort_stack(group, plane)
        kept.append(stack)
        repeated.extend(later)
    kept.sort(key=lambda stack: _rank(stack, plane))
    in_planes = choose_in_planes(
        [stack.group.frame for stack in kept], [len(stack.headers) for stack in kept], plane
    )
    return Ordered(
        plane,
        tuple(header for stack in kept for header in stack.headers),
        tuple(number for number, stack in enumerate(kept) for _ in stack.headers),
        (*outside, *repeated),
        _notes(plane, wanted, kept, outside, repeated),
        tuple(header for stack in kept for header in stack.straight),
        tuple(one for one, stack in zip(in_planes, kept, strict=True) for _ in stack.headers),
        tuple(tilt_mm(stack.group) for stack in kept for _ in stack.headers),
        _is_revised(groups, kept, in_planes, plane, wanted),
    )


def _is_revised(
    groups: Sequence[ParallelSlices],
    kept: Sequence[_SortedStack],
    in_planes: Sequence[InPlane],
    plane: Plane,
    wanted: Plane | None,
) -> bool:
    """Tell if the result may differ from revision 2.

    That one chose the plane per slice and ordered stacks by height.
    """
    if any(group.is_joined for group in groups):
        return True
    if len(kept) > 1 and plane is not Plane.AXIAL:
        return True
    if any(
        _lies_in(header, plane) != _lies_in(group.frame, plane)
        for group in groups
        if not group.is_exact
        for header in group.headers
    ):
        return True
    if not all(_lies_in(stack.group.frame, plane) for stack in kept):
        return True
    pairs = zip(kept, in_planes, strict=True)
    if any(choose_in_plane(stack.straight[0], plane) != one for stack, one in pairs):
        return True
    return wanted == plane and 2 * sum(len(stack.headers) for stack in kept) <= sum(
        len(group.headers) for group in groups
    )


def choose_plane(groups: Sequence[ParallelSlices], wanted: Plane | None) -> Plane:
    """Return the wanted plane if most slices fit it, else the plane of most slices.

    Of planes with equally many slices the wanted one is taken, else the first. All slices of one
    orientation have one plane.
    """
    n_slices = sum(len(group.headers) for group in groups)
    if wanted is not None:
        fitting = sum(len(g.headers) for g in groups if _lies_in(g.frame, wanted))
        if fitting * 2 > n_slices:
            return wanted
    counts = Counter[Plane]()
    for group in groups:
        counts[nearest_plane(group.frame)] += len(group.headers)
    return max(Plane, key=lambda plane: (counts[plane], plane == wanted))


def split_by_plane(
    groups: Sequence[ParallelSlices], plane: Plane
) -> tuple[list[ParallelSlices], list[LeftOut]]:
    """Return the stacks that fit a plane, and the slices of those that do not."""
    surely = np.array([normal_of(g.frame) for g in groups if _lies_in(g.frame, plane)])
    nearly = math.cos(math.radians(BETWEEN_PLANES_DEGREES))

    def is_inside(group: ParallelSlices) -> bool:
        cosines = surely @ normal_of(group.frame) if len(surely) else np.zeros(1)
        return _lies_in(group.frame, plane) or bool(np.abs(cosines).max() >= nearly)

    inside = [group for group in groups if is_inside(group)]
    outside = [
        LeftOut(
            header,
            Reason.OTHER_PLANE,
            f"{nearest_plane(group.frame)} in a series taken as {plane}",
        )
        for group in groups
        if not is_inside(group)
        for header in group.headers
    ]
    return inside, sorted(outside, key=lambda one: (one.header.file, one.header.frame))


def _sort_stack(group: ParallelSlices, plane: Plane) -> tuple[_SortedStack, list[LeftOut]]:
    """Sort the slices of one orientation along its normal, one image per position."""
    of_frame = {(header.file, header.frame): header for header in group.headers}
    straight = list(group.headers)
    if not group.is_even:
        straight = straighten(group, slice_axis(group.frame, plane))
    first, later = drop_repeats(sort_along_normal(straight, plane), plane)
    headers = [of_frame[header.file, header.frame] for header in first]
    return _SortedStack(group, headers, first), later


def _rank(stack: _SortedStack, plane: Plane) -> tuple[object, ...]:
    """Order stacks in the direction in which D grows; two at one position, by their direction."""
    centre = np.mean([centre_of(header) for header in stack.straight], axis=0)
    return float(centre @ CANONICAL_AXES[plane][0]), tuple(centre), stack.group.mean


def sort_along_normal(headers: Sequence[SliceHeader], plane: Plane) -> list[SliceHeader]:
    """Sort slices of one orientation in the direction in which D grows in the plane."""
    axis = slice_axis(headers[0], plane)
    return sorted(headers, key=lambda h: (float(centre_of(h) @ axis), h.turn))


def drop_repeats(
    headers: Sequence[SliceHeader], plane: Plane
) -> tuple[list[SliceHeader], list[LeftOut]]:
    """Keep one image per position, of slices sorted along their normal.

    It is the first in turn of the most frequent contrast at that position.
    """
    kept: list[SliceHeader] = []
    left_out: list[LeftOut] = []
    for cluster in _clusters(headers, plane):
        taken: list[SliceHeader] = []
        for header in sorted(cluster, key=lambda h: (h.contrast, h.turn)):
            twin = next((t for t in taken if _is_same_position(t, header)), None)
            if twin is None:
                taken.append(header)
            else:
                detail = f"image {header.instance_number} repeats image {twin.instance_number}"
                left_out.append(LeftOut(header, Reason.REPEATED_POSITION, detail))
        kept.extend(sort_along_normal(taken, plane))
    return kept, left_out


def _notes(
    plane: Plane,
    wanted: Plane | None,
    stacks: Sequence[_SortedStack],
    outside: Sequence[LeftOut],
    repeated: Sequence[LeftOut],
) -> Notes:
    notes: Notes = {}
    if wanted not in {None, plane}:
        notes[Flag.PLANE_DISAGREES] = f"{wanted} by the CSV, {plane} by the header"
    if len(stacks) > 1:
        normals = np.array([normal_of(stack.straight[0]) for stack in stacks])
        cosine = float(np.abs(normals @ normals.T).min())
        widest = math.degrees(math.acos(min(cosine, 1.0)))
        notes[Flag.SEVERAL_ORIENTATIONS] = (
            f"{len(stacks)} orientations, normals up to {widest:.1f} degrees apart"
        )
    uneven = [stack.group.spread_degrees for stack in stacks if not stack.group.is_even]
    contrasts = Counter(header.turn[1:3] for stack in stacks for header in stack.headers)
    if len(contrasts) > 1:
        notes[Flag.MIXED_CONTRASTS] = _name_contrasts(contrasts)
    if uneven:
        notes[Flag.UNEVEN_TILT] = f"up to {max(uneven):.2f} degrees from the mean of a stack"
    if outside:
        counts = Counter(nearest_plane(left_out.header) for left_out in outside)
        notes[Flag.OTHER_PLANES] = ", ".join(f"{counts[p]} {p}" for p in Plane if counts[p])
    if repeated:
        n_kept = sum(len(stack.headers) for stack in stacks)
        notes[Flag.REPEATED_POSITIONS] = f"{n_kept + len(repeated)} images of {n_kept} positions"
    return notes


def _name_contrasts(contrasts: Counter[tuple[int, ...]]) -> str:
    """Describe how many slices each echo or component (magnitude, phase) has."""
    counts = sorted(contrasts.values(), reverse=True)
    return f"echoes or components, {' + '.join(map(str, counts))} slices"


def _clusters(headers: Sequence[SliceHeader], plane: Plane) -> list[list[SliceHeader]]:
    """Split sorted slices wherever the next is farther along the normal than the tolerance."""
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
    """Tell if a plane is the nearest of a slice, or axial for a steep slice."""
    nearest = nearest_plane(header)
    if (plane, nearest) != (Plane.AXIAL, Plane.CORONAL):
        return nearest == plane
    cosine = abs(float(normal_of(header) @ CANONICAL_AXES[plane][0]))
    return cosine >= math.cos(math.radians(STEEP_AXIAL_DEGREES))
