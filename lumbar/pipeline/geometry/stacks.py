"""Stacks: runs of slices that one affine places in the patient, exactly.

A gap or a change of step, orientation or pixel size starts a new stack, so that no affine averages
over irregular slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from lumbar.cache.format import Stack
from lumbar.pipeline.flags import Flag, Notes
from lumbar.pipeline.geometry.grid import Placed
from lumbar.pipeline.geometry.orient import POSITION_TOLERANCE_MM

PIXEL_TOLERANCE = 1e-4
"""Relative tolerance of the pixel size within a stack: 0.04 pixels at 384."""

GAP_TOLERANCE = 0.1
"""A step is a gap if it is a multiple of the usual one, within this share of the usual one."""

FALLBACK_SPACING_MM = 1.0

MAX_PLACES = 20
"""Places that a flag names; the others are counted."""


def find_stacks(
    placed: Sequence[Placed],
    groups: Sequence[int],
    d_axes_lps: Float[np.ndarray, "d 3"],
    thickness_mm: float | None,
    slack_mm: Sequence[float] = (),
) -> tuple[tuple[Stack, ...], float, Notes]:
    """Return the stacks, the usual spacing of slices in millimetres, and flags with their places.

    ``groups`` numbers the orientation of each slice, ``d_axes_lps`` holds its unit normal in the
    direction in which D grows. ``thickness_mm`` is the spacing if no two slices determine it.
    ``slack_mm`` is added per slice to the tolerance of positions, by default 0.
    """
    origins_lps = np.array([one.origin_lps for one in placed])
    alike = _alike(placed, groups)
    steps_mm = (np.diff(origins_lps, axis=0) * d_axes_lps[1:]).sum(axis=1)
    usable = steps_mm[alike & (steps_mm > POSITION_TOLERANCE_MM)]
    usual_mm = _usual_mm(usable) if len(usable) else thickness_mm or FALLBACK_SPACING_MM
    bounds_mm = POSITION_TOLERANCE_MM + np.array(slack_mm or (0.0,) * len(placed))
    stacks = tuple(
        Stack(
            start,
            stop,
            _affine(placed[start], origins_lps[start:stop], d_axes_lps[start] * usual_mm),
        )
        for start, stop in _runs(origins_lps, alike, steps_mm, usual_mm, bounds_mm)
    )
    notes: Notes = {}
    if not len(usable) and not thickness_mm:
        notes[Flag.SPACING_UNKNOWN] = f"{usual_mm:g} mm stands in"
    notes |= _note_steps(stacks, alike, steps_mm, usual_mm, bounds_mm)
    shears_mm = [_shear_mm(stack) for stack in stacks]
    if max(shears_mm) > POSITION_TOLERANCE_MM:
        notes[Flag.SHEARED] = f"{max(shears_mm):.2f} mm a step"
    return stacks, usual_mm, notes


def _usual_mm(steps_mm: Float[np.ndarray, " steps"]) -> float:
    """Return the median step; of two middle steps the smaller, because slices may be missing."""
    in_order = np.sort(steps_mm)
    below, above = in_order[(len(in_order) - 1) // 2], in_order[len(in_order) // 2]
    is_one = above - below <= POSITION_TOLERANCE_MM
    return float(np.median(steps_mm) if is_one else below)


def _alike(placed: Sequence[Placed], groups: Sequence[int]) -> Bool[np.ndarray, " steps"]:
    """Tell for each slice but the first if it has the orientation and pixels of the one before."""
    sizes_mm = np.array(
        [[np.linalg.norm(one.h_step_lps), np.linalg.norm(one.w_step_lps)] for one in placed]
    )
    same_size = np.isclose(sizes_mm[1:], sizes_mm[:-1], rtol=PIXEL_TOLERANCE, atol=0).all(axis=1)
    same_group = np.array([one == other for one, other in pairwise(groups)], bool)
    return np.asarray(same_size & same_group, bool)


def _runs(
    origins_lps: Float[np.ndarray, "d 3"],
    alike: Bool[np.ndarray, " steps"],
    steps_mm: Float[np.ndarray, " steps"],
    usual_mm: float,
    bounds_mm: Float[np.ndarray, " d"],
) -> list[tuple[int, int]]:
    """Split the slices into runs at one step, each as long as possible from its first slice on."""
    runs = []
    start, depth = 0, len(origins_lps)
    while start < depth:
        stop = start + 1
        bound_mm = float(bounds_mm[start])
        if _begins_run(start, alike, steps_mm, usual_mm, bound_mm):
            while (
                stop < depth
                and alike[stop - 1]
                and _on_one_line(origins_lps[start : stop + 1], bound_mm)
            ):
                stop += 1
        runs.append((start, stop))
        start = stop
    return runs


def _begins_run(
    start: int,
    alike: Bool[np.ndarray, " steps"],
    steps_mm: Float[np.ndarray, " steps"],
    usual_mm: float,
    bound_mm: float,
) -> bool:
    """Tell if the step after a slice is the usual one, or equal to the next step."""
    if start >= len(alike) or not alike[start]:
        return False
    if abs(steps_mm[start] - usual_mm) <= bound_mm:
        return True
    follows = start + 1 < len(alike) and bool(alike[start + 1])
    return follows and bool(abs(steps_mm[start] - steps_mm[start + 1]) <= bound_mm)


def _on_one_line(origins_lps: Float[np.ndarray, "n 3"], bound_mm: float) -> bool:
    """Tell if points lie on a line at equal steps, within a bound."""
    share = np.linspace(0, 1, len(origins_lps))[:, None]
    line = origins_lps[0] + share * (origins_lps[-1] - origins_lps[0])
    return bool(np.linalg.norm(origins_lps - line, axis=1).max() <= bound_mm)


def _affine(
    first: Placed,
    origins_lps: Float[np.ndarray, "n 3"],
    lone_step_lps: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "4 4"]:
    """Return the affine of a run by its mean step, or by the given step for a single slice."""
    count = len(origins_lps)
    affine = np.eye(4)
    affine[:3, 0] = (origins_lps[-1] - origins_lps[0]) / (count - 1) if count > 1 else lone_step_lps
    affine[:3, 1] = first.h_step_lps
    affine[:3, 2] = first.w_step_lps
    affine[:3, 3] = origins_lps[0]
    return affine


def _note_steps(
    stacks: Sequence[Stack],
    alike: Bool[np.ndarray, " steps"],
    steps_mm: Float[np.ndarray, " steps"],
    usual_mm: float,
    bounds_mm: Float[np.ndarray, " d"],
) -> Notes:
    """Flag unusual steps within one orientation, and other breaks."""
    unusual = alike & (np.abs(steps_mm - usual_mm) > bounds_mm[1:])
    multiples = steps_mm[unusual] / usual_mm
    whole = np.rint(multiples)
    is_gap = (whole > 1) & (np.abs(multiples - whole) <= GAP_TOLERANCE)
    bent = [bool(alike[s.start - 1]) and not unusual[s.start - 1] for s in stacks[1:]]
    places = np.flatnonzero(unusual)
    gaps = [
        f"{count - 1:.0f} missing between d={d} and d={d + 1}"
        for d, count in zip(places[is_gap], whole[is_gap], strict=True)
    ]
    uneven = [
        f"{steps_mm[d]:.2f} mm between d={d} and d={d + 1}, usually {usual_mm:.2f}"
        for d in places[~is_gap]
    ]
    uneven += [
        f"off the line between d={stack.start - 1} and d={stack.start}"
        for stack, is_bent in zip(stacks[1:], bent, strict=True)
        if is_bent
    ]
    found = {Flag.GAP: gaps, Flag.IRREGULAR_SPACING: uneven}
    return {flag: _first_few(texts) for flag, texts in found.items() if texts}


def _first_few(texts: Sequence[str]) -> str:
    more = f"; {len(texts) - MAX_PLACES} more" if len(texts) > MAX_PLACES else ""
    return "; ".join(texts[:MAX_PLACES]) + more


def _shear_mm(stack: Stack) -> float:
    """Return the distance by which a step deviates from the normal of the slices."""
    if stack.stop - stack.start == 1:
        return 0.0
    d_step, h_step, w_step = stack.affine[:3, :3].T
    normal = np.cross(h_step, w_step)
    normal /= np.linalg.norm(normal)
    return float(np.linalg.norm(d_step - normal * (d_step @ normal)))
