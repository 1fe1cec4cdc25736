"""The volume of one series: slices turned, scaled and normalised, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from lumbar.cache.format import SourceGrid, VolumeAttributes, Window
from lumbar.cache.tables import config_hash
from lumbar.cache.volumes import Stored
from lumbar.pipeline.classify import classify
from lumbar.pipeline.decode import Picture
from lumbar.pipeline.flags import Flag
from lumbar.pipeline.grid import Placed, place, resample, windows
from lumbar.pipeline.header import SeriesHeader, SliceHeader
from lumbar.pipeline.normalise import LEVELS, Rescale, find_window, quantise, rescale
from lumbar.pipeline.order import Ordered
from lumbar.pipeline.orient import orient_all, slice_axis, turn
from lumbar.pipeline.source import SeriesTask
from lumbar.pipeline.stacks import find_stacks

FEW_SLICES = 5
"""The shortest series of the data set has five slices (docs/what-is-accepted.md)."""


def build_volume(
    task: SeriesTask,
    ordered: Ordered,
    pictures: Mapping[SliceHeader, Picture],
    described: SeriesHeader,
    *,
    source_hash: str,
    has_left_out: bool,
) -> tuple[Stored, VolumeAttributes]:
    """Turn, normalise and scale the slices of a series, and say what came of it.

    Raises
    ------
    RejectedError
        If all pixels have one value or the volume would be too large.
    """
    headers = ordered.headers
    canvas, placed = place(orient_all(headers, ordered.plane), task.config)
    d_axes_lps = np.array([slice_axis(header, ordered.plane) for header in headers])
    stacks, spacing_d_mm, stack_flags = find_stacks(
        placed, ordered.groups, d_axes_lps, headers[0].thickness_mm
    )
    rescales = [Rescale(header.slope, header.intercept) for header in headers]
    kept = [pictures[header] for header in headers]
    window, is_sparse = find_window(kept, rescales, task.config.percentiles)
    volume_dhw = np.zeros((len(headers), *canvas), task.config.dtype)
    for stored_hw, one, picture, factors in zip(volume_dhw, placed, kept, rescales, strict=True):
        _fill(stored_hw, one, rescale(picture, factors, window.low), window)
    longest = max(stacks, key=lambda stack: stack.stop - stack.start)
    spacing_h_mm, spacing_w_mm = np.linalg.norm(longest.affine[:3, 1:3], axis=0)
    flags = [
        (Flag.NOT_IN_CSV, task.has_csv and task.named is None),
        *((flag, True) for flag in (*ordered.flags, *stack_flags)),
        (Flag.MIXED_SIZES, len({_size(header) for header in headers}) > 1),
        (Flag.FEW_SLICES, len(headers) < FEW_SLICES),
        (Flag.SPARSE, is_sparse),
        (Flag.FILES_LEFT_OUT, has_left_out),
    ]
    attributes = VolumeAttributes(
        study_id=task.study_id,
        series_id=task.series_id,
        series_type=task.named or classify(described, ordered.plane),
        stacks=stacks,
        source_grids=_source_grids(placed),
        spacing_mm=(spacing_d_mm, float(spacing_h_mm), float(spacing_w_mm)),
        scale=1 / LEVELS[task.config.dtype],
        offset=0.0,
        window=window,
        instance_numbers=tuple(header.instance_number for header in headers),
        sop_instance_uids=tuple(header.sop_instance_uid for header in headers),
        source_hash=source_hash,
        config_hash=config_hash(task.config.model_dump(mode="json")),
        manufacturer=described.manufacturer,
        transfer_syntax=described.transfer_syntax,
        n_files=len(task.files),
        flags=tuple(str(flag) for flag, holds in flags if holds),
    )
    return volume_dhw, attributes


def _fill(
    stored_hw: Any, placed: Placed, rescaled: Float32[np.ndarray, "rows columns"], window: Window
) -> None:
    """Turn, scale and store one slice; the canvas around it stays 0."""
    turned_hw = np.ascontiguousarray(turn(rescaled, placed.oriented.in_plane))
    on_canvas, shown = windows(placed, (stored_hw.shape[0], stored_hw.shape[1]))
    stored_hw[on_canvas] = quantise(
        resample(turned_hw, placed)[shown], window, stored_hw.dtype.name
    )


def _source_grids(placed: Sequence[Placed]) -> tuple[SourceGrid, ...]:
    """Return the runs of slices whose original pixels came to lie alike."""
    matrices = [one.source_to_canvas for one in placed]
    starts = [
        index
        for index, matrix in enumerate(matrices)
        if index == 0 or not np.array_equal(matrix, matrices[index - 1])
    ]
    stops = [*starts[1:], len(matrices)]
    return tuple(
        SourceGrid(start, stop, matrices[start]) for start, stop in zip(starts, stops, strict=True)
    )


def _size(header: SliceHeader) -> tuple[int, int, float, float]:
    return header.rows, header.columns, header.row_spacing_mm, header.column_spacing_mm
