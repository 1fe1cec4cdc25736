"""The volume of one series: slices turned, scaled and normalised, and its attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any

import numpy as np
from jaxtyping import Float32

from lumbar.cache.format import IntensityWindow, SourceGrid, VolumeAttributes
from lumbar.cache.names import SeriesType
from lumbar.cache.tables import config_hash
from lumbar.cache.volumes import Stored
from lumbar.pipeline.dicom.decode import Picture
from lumbar.pipeline.dicom.header import SeriesHeader, SliceHeader
from lumbar.pipeline.flags import Flag, Notes
from lumbar.pipeline.geometry.grid import Placed, place, resample, windows
from lumbar.pipeline.geometry.order import Ordered
from lumbar.pipeline.geometry.orient import turn
from lumbar.pipeline.geometry.stacks import find_stacks
from lumbar.pipeline.reject import Rejection
from lumbar.pipeline.series.normalise import LEVELS, Rescale, find_window, quantise, rescale
from lumbar.pipeline.series.series_type import find_series_type
from lumbar.pipeline.series.task import SeriesTask

MAX_SIZES = 10
"""Sizes that the flag of mixed sizes names."""

FEW_SLICES = 5
"""The shortest series of the data set has five slices (docs/what-is-accepted.md)."""


def build_volume(
    task: SeriesTask,
    ordered: Ordered,
    pictures: Mapping[SliceHeader, Picture],
    described: SeriesHeader,
    *,
    source_hash: str,
    left_out: Sequence[Rejection],
    id_disagrees: str,
    mixed_contrasts: str = "",
    other_patients: str = "",
) -> tuple[Stored, VolumeAttributes]:
    """Turn, normalise and scale the slices of a series, and describe the result.

    ``left_out`` are the rows of the files that are not in it. ``id_disagrees`` is the study and
    series in its headers if they differ from its ids, ``mixed_contrasts`` describes how the
    contrasts differ, ``other_patients`` names the series of the study that are of another patient.

    Raises
    ------
    RejectedError
        If all pixels have one value or the volume would be too large.
    """
    headers = ordered.headers
    canvas, placed = place(ordered.oriented, task.config)
    stacks, spacing_d_mm, stack_notes = find_stacks(
        placed, ordered.groups, ordered.d_axes_lps, _thickness_mm(headers), ordered.slack_mm
    )
    rescales = [Rescale(header.slope, header.intercept) for header in headers]
    kept = [pictures[header] for header in headers]
    window, is_sparse = find_window(kept, rescales, task.config.percentiles)
    volume_dhw = np.zeros((len(headers), *canvas), task.config.dtype)
    for stored_hw, one, picture, factors in zip(volume_dhw, placed, kept, rescales, strict=True):
        _fill(stored_hw, one, rescale(picture, factors, window.low), window)
    longest = max(stacks, key=lambda stack: stack.stop - stack.start)
    spacing_h_mm, spacing_w_mm = np.linalg.norm(longest.affine[:3, 1:3], axis=0)
    by_header = find_series_type(described, ordered.plane)
    notes = {
        **_note_names(task, by_header, id_disagrees, ordered),
        **_note_sharing(task, mixed_contrasts, other_patients),
        **ordered.notes,
        **stack_notes,
        **_note_contents(headers, window, left_out, is_sparse=is_sparse),
    }
    attributes = VolumeAttributes(
        study_id=task.study_id,
        series_id=task.series_id,
        series_type=task.named or by_header,
        stacks=stacks,
        source_grids=_source_grids(headers, placed),
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
        flags=tuple(map(str, notes)),
        flag_details={str(flag): detail for flag, detail in notes.items() if detail},
    )
    return volume_dhw, attributes


def _thickness_mm(headers: Sequence[SliceHeader]) -> float | None:
    """Return the median of the thicknesses, None if no slice has one."""
    found = [header.thickness_mm for header in headers if header.thickness_mm is not None]
    return median_low(found) if found else None


def _note_names(
    task: SeriesTask, by_header: SeriesType, id_disagrees: str, ordered: Ordered
) -> Notes:
    """Flag differences between the CSV, the folder and the headers of a series."""
    notes: Notes = {}
    if task.has_csv and task.named is None:
        notes[Flag.NOT_IN_CSV] = f"{by_header} by the header"
    names_another = task.named is not None and by_header not in {SeriesType.OTHER, task.named}
    if names_another and Flag.PLANE_DISAGREES not in ordered.flags:
        notes[Flag.TYPE_DISAGREES] = f"{task.named} by the CSV, {by_header} by the header"
    if id_disagrees:
        notes[Flag.ID_DISAGREES] = id_disagrees
    return notes


def _note_sharing(task: SeriesTask, mixed_contrasts: str, other_patients: str) -> Notes:
    """Flag a UID of several series, a study of several patients, a series of several contrasts."""
    notes = {Flag.SHARED_UID: ""} if task.shares_uid else {}
    if other_patients:
        notes[Flag.SEVERAL_PATIENTS] = other_patients
    if mixed_contrasts:
        notes[Flag.MIXED_CONTRASTS] = mixed_contrasts
    return notes


def _note_contents(
    headers: Sequence[SliceHeader],
    window: IntensityWindow,
    left_out: Sequence[Rejection],
    *,
    is_sparse: bool,
) -> Notes:
    """Flag unusual sizes, numbers and values of the stored slices, and files that are left out."""
    notes: Notes = {}
    sizes = Counter(_size(header) for header in headers)
    if len(sizes) > 1:
        notes[Flag.MIXED_SIZES] = "; ".join(
            f"{count} of {rows} x {columns} at {row_mm:g} x {column_mm:g} mm"
            for (rows, columns, row_mm, column_mm), count in sizes.most_common(MAX_SIZES)
        )
    if len(headers) < FEW_SLICES:
        notes[Flag.FEW_SLICES] = f"{len(headers)}"
    if is_sparse:
        notes[Flag.SPARSE] = f"from {window.low:g} to {window.high:g}"
    if left_out:
        reasons = Counter(rejection.reason for rejection in left_out)
        notes[Flag.FILES_LEFT_OUT] = ", ".join(
            f"{count} {reason}" for reason, count in sorted(reasons.items())
        )
    return notes


def _fill(
    stored_hw: Any,
    placed: Placed,
    rescaled: Float32[np.ndarray, "rows columns"],
    window: IntensityWindow,
) -> None:
    """Turn, scale and store one slice; the canvas around it stays 0."""
    turned_hw = np.ascontiguousarray(turn(rescaled, placed.oriented.in_plane))
    on_canvas, shown = windows(placed, (stored_hw.shape[0], stored_hw.shape[1]))
    stored_hw[on_canvas] = quantise(
        resample(turned_hw, placed)[shown], window, stored_hw.dtype.name
    )


def _source_grids(
    headers: Sequence[SliceHeader], placed: Sequence[Placed]
) -> tuple[SourceGrid, ...]:
    """Return the runs of slices whose original pixels map to the canvas alike."""
    matrices = [one.source_to_canvas for one in placed]
    pictures = [(header.rows, header.columns) for header in headers]
    starts = [
        index
        for index, matrix in enumerate(matrices)
        if index == 0
        or pictures[index] != pictures[index - 1]
        or not np.array_equal(matrix, matrices[index - 1])
    ]
    stops = [*starts[1:], len(matrices)]
    return tuple(
        SourceGrid(start, stop, matrices[start], pictures[start])
        for start, stop in zip(starts, stops, strict=True)
    )


def _size(header: SliceHeader) -> tuple[int, int, float, float]:
    return header.rows, header.columns, header.row_spacing_mm, header.column_spacing_mm
