"""A picture of one cached series: its slices, where they lie, and its annotated points."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumbar.cache.files.atomic import save_figure
from lumbar.cache.format import Stack
from lumbar.cache.store import Cache
from lumbar.inspect.annotated import SEVERITY_COLOURS, Point, points_of

MAX_SLICES = 20
"""More are shown only if more are annotated."""

COLUMNS = 5
PANEL_INCHES = 2.6
DPI = 130

SHADE = {"facecolor": "black", "alpha": 0.65, "pad": 0.6, "linewidth": 0}
"""Background of letters, which makes them readable on bright tissue."""

AXES_LPS = (("L", "R"), ("P", "A"), ("S", "I"))
"""Letters of the positive and the negative direction of x, y and z."""


def contact_sheet(cache: Cache, row: int, out: Path) -> None:
    """Write a PNG of the series in a row of ``cache.series``.

    Up to `MAX_SLICES` slices, evenly spaced, and every slice that has a point. Titles name the
    slice and its centre in patient millimetres along the axis it is nearest to; letters at the
    edges are patient directions, taken from the affine.

    Raises
    ------
    FormatError, InputError
        If the volume or its metadata is damaged or gone.
    """
    attributes = cache.attributes(row)
    volume_dhw = cache.volume(row)
    points = points_of(cache, attributes.study_id, attributes.series_id)
    slices = choose_slices(attributes.depth, {point.d for point in points})
    columns = min(COLUMNS, len(slices))
    rows = math.ceil(len(slices) / columns)
    depth, height, width = volume_dhw.shape
    spacing_d_mm, spacing_h_mm, spacing_w_mm = attributes.spacing_mm
    # Not pyplot's: a figure of pyplot stays open after an error.
    figure = Figure(
        figsize=(PANEL_INCHES * columns, (PANEL_INCHES + 0.25) * rows + 0.6), layout="constrained"
    )
    figure.patch.set_facecolor("black")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, d in zip(panels, slices, strict=False):
        image_hw = volume_dhw[d] * np.float32(attributes.scale) + np.float32(attributes.offset)
        panel.imshow(image_hw, cmap="gray", vmin=0, vmax=1, aspect=spacing_h_mm / spacing_w_mm)
        panel.set_autoscale_on(False)
        _write_position(panel, attributes.stack_of(d), d, (height, width))
        _draw_points(panel, [point for point in points if point.d == d], width)
    flags = f"   {', '.join(attributes.flags)}" if attributes.flags else ""
    figure.suptitle(
        f"study {attributes.study_id}   series {attributes.series_id}   {attributes.series_type}\n"
        f"{depth} slices of {height} x {width}, stacks: {len(attributes.stacks)}, "
        f"{spacing_d_mm:.2f} x {spacing_h_mm:.2f} x {spacing_w_mm:.2f} mm{flags}",
        color="white",
        fontsize=9,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, out, dpi=DPI)


def choose_slices(depth: int, annotated: set[int]) -> list[int]:
    """Return the slices to show, in order: all annotated ones, the rest spread evenly."""
    if depth <= MAX_SLICES:
        return list(range(depth))
    n_others = max(MAX_SLICES - len(annotated), 0)
    others = np.linspace(0, depth - 1, n_others).round().astype(int).tolist()
    return sorted(annotated.union(others))


def direction_letter(direction_lps: Float64[np.ndarray, "3"]) -> str:
    """Return L, R, P, A, S or I, whichever a patient direction is nearest to."""
    axis = int(np.abs(direction_lps).argmax())
    return AXES_LPS[axis][0 if direction_lps[axis] > 0 else 1]


def position_text(stack: Stack, d: int, shape_hw: tuple[int, int]) -> str:
    """Return the position of a slice's centre along the patient axis nearest to its normal."""
    height, width = shape_hw
    centre_lps = stack.affine @ (d - stack.start, (height - 1) / 2, (width - 1) / 2, 1)
    normal_lps = np.cross(stack.affine[:3, 1], stack.affine[:3, 2])
    axis = int(np.abs(normal_lps).argmax())
    millimetres = round(float(centre_lps[axis]), 1)
    side = AXES_LPS[axis][0 if millimetres > 0 else 1] if millimetres else ""
    return f"{'xyz'[axis]} {millimetres:+.1f} mm {side}".rstrip()


def _write_position(panel: Axes, stack: Stack, d: int, shape_hw: tuple[int, int]) -> None:
    """Write the slice's index and position above it and patient directions at its edges."""
    title = f"slice {d}   {position_text(stack, d, shape_hw)}"
    panel.set_title(title, color="white", fontsize=7, pad=3)
    down_lps, right_lps = stack.affine[:3, 1], stack.affine[:3, 2]
    for x, y, direction_lps in (
        (0.03, 0.5, -right_lps),
        (0.97, 0.5, right_lps),
        (0.5, 0.97, -down_lps),
        (0.5, 0.03, down_lps),
    ):
        panel.text(
            x,
            y,
            direction_letter(direction_lps),
            transform=panel.transAxes,
            color="#7fd4ff",
            fontsize=8,
            ha="center",
            va="center",
            bbox=SHADE,
        )


def _draw_points(panel: Axes, points: list[Point], width: int) -> None:
    """Circle the points of a slice; put the name outwards, or inwards near an edge."""
    for point in points:
        colour = SEVERITY_COLOURS[point.severity]
        panel.plot(point.w, point.h, "o", ms=5, mfc="none", mec=colour, mew=1.1)
        from_middle = point.w / width - 0.5
        side = 1 if 0 <= from_middle < 0.25 or from_middle <= -0.25 else -1
        panel.annotate(
            f"{point.name}\n{point.severity}",
            (point.w, point.h),
            xytext=(7 * side, 0),
            textcoords="offset points",
            color=colour,
            fontsize=5.5,
            ha="left" if side > 0 else "right",
            va="center",
            bbox=SHADE,
        ).set_in_layout(False)
