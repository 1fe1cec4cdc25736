"""The parts of a DICOM header that the pipeline needs: `SliceHeader` and `SeriesHeader`.

Classic files hold one slice; enhanced files hold many, each described by functional groups
(DICOM PS3.3 C.7.6.16). The elements decide, not SOPClassUID: the data set's files have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pydicom

from lumbar.pipeline.dicom.elements import (
    bits_stored,
    frame_count,
    has,
    hint,
    integer,
    numbers,
    required,
    same_bits,
    text,
    texts,
    value_of,
)
from lumbar.pipeline.dicom.image_check import check_image
from lumbar.pipeline.dicom.parse import transfer_syntax
from lumbar.pipeline.reject import Reason, RejectedError

MAX_PIXELS = 2**28
"""Default of the most pixels in one file: 512 MB at 16 bits, four times the largest enhanced MR
known to us."""

MAX_SPACING_MM = 20.0
MIN_SPACING_MM = 0.01
MAX_POSITION_MM = 1e5
UNIT_TOLERANCE = 0.01
"""Tolerance of the length of a direction (1), and of the cosine of row and column (0)."""

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """One slice: frame number ``frame`` in file number ``file`` of the series, both from zero.

    ``row_direction`` points along a row (growing column index), ``column_direction`` down a column,
    unit vectors in LPS; ``position_lps`` is the centre of the first pixel in millimetres. ``turn``
    orders the images of one position: time, echo, component, instance, file, frame. In multi-frame
    files component comes before echo, because a field map there has echo time 0. ``contrast`` is 0
    for the most frequent contrast of the series; it is compared before ``turn``. ``is_revised``:
    caches of revision 2 hold other values of it (`lumbar.pipeline.series.revisions`).
    """

    file: int
    frame: int
    rows: int
    columns: int
    row_spacing_mm: float
    column_spacing_mm: float
    position_lps: Triple
    row_direction: Triple
    column_direction: Triple
    instance_number: int
    sop_instance_uid: str
    turn: tuple[int, ...]
    slope: float
    intercept: float
    thickness_mm: float | None
    contrast: int = 0
    is_revised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHeader:
    """The properties of a series by one of its files; absent values are "" or None.

    ``is_diffusion`` is true if any of its files shows diffusion.
    """

    description: str
    scanning_sequence: tuple[str, ...]
    echo_time_ms: float | None
    repetition_time_ms: float | None
    manufacturer: str
    transfer_syntax: str
    is_diffusion: bool = False


def read_slices(
    dataset: pydicom.Dataset, *, file: int, name: str, max_pixels: int = MAX_PIXELS
) -> list[SliceHeader]:
    """Return the slices of a file in the order of its frames; ``name`` is its path.

    ``max_pixels`` bounds rows x columns x frames, before decoding.

    Raises
    ------
    RejectedError
        If it is no grey-scale image, too large, or has no position.
    """
    check_image(dataset, max_pixels)
    if value_of(dataset, "PerFrameFunctionalGroupsSequence"):
        return list(_enhanced_slices(dataset, file=file))
    if frame_count(dataset) > 1:
        raise RejectedError(Reason.NO_POSITION, "several frames and no functional groups")
    return [_classic_slice(dataset, file=file, name=name)]


def read_series_header(dataset: pydicom.Dataset) -> SeriesHeader:
    """Return the properties of a series by one file; no element is required."""
    shared = (value_of(dataset, "SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    frames = value_of(dataset, "PerFrameFunctionalGroupsSequence") or [pydicom.Dataset()]
    echoes = [_group(frame, shared, "MREchoSequence") for frame in frames]
    echo_times_ms = [time for time in (hint(e, "EffectiveEchoTime") for e in echoes) if time]
    timing = _group(frames[0], shared, "MRTimingAndRelatedParametersSequence")
    return SeriesHeader(
        description=text(dataset, "SeriesDescription"),
        scanning_sequence=texts(dataset, "ScanningSequence")
        + (("EP",) if "EPI" in text(dataset, "PulseSequenceName").upper() else ()),
        echo_time_ms=hint(dataset, "EchoTime") or min(echo_times_ms, default=None),
        repetition_time_ms=hint(dataset, "RepetitionTime") or hint(timing, "RepetitionTime"),
        manufacturer=text(dataset, "Manufacturer"),
        transfer_syntax=transfer_syntax(dataset),
    )


def _classic_slice(dataset: pydicom.Dataset, *, file: int, name: str) -> SliceHeader:
    instance_number = _instance_number(dataset, name)
    is_phase = {"P", "PHASE", "R", "REAL", "I", "IMAGINARY"} & set(texts(dataset, "ImageType"))
    return _slice(
        dataset,
        position=dataset,
        orientation=dataset,
        measures=dataset,
        rescale=dataset,
        file=file,
        frame=0,
        is_revised=False,
        instance_number=instance_number,
        turn=(
            int(hint(dataset, "TemporalPositionIdentifier") or 0),
            int(hint(dataset, "EchoNumbers") or 0),
            int(bool(is_phase)),
            instance_number,
            file,
            0,
        ),
    )


def _enhanced_slices(dataset: pydicom.Dataset, *, file: int) -> Iterator[SliceHeader]:
    shared = (value_of(dataset, "SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    frames = _frames(dataset)
    # Shared values may stand outside of the groups; positions of several frames may not.
    file_place = dataset if len(frames) == 1 else pydicom.Dataset()
    has_surplus = len(dataset.PerFrameFunctionalGroupsSequence) > len(frames)
    for index, frame in enumerate(frames):
        content = _group(frame, shared, "FrameContentSequence")
        kind = _group(frame, shared, "MRImageFrameTypeSequence")
        echo = _group(frame, shared, "MREchoSequence")
        is_phase = text(kind, "ComplexImageComponent") not in {"", "MAGNITUDE"}
        rescale = _rescale_group(frame, shared)
        yield _slice(
            dataset,
            position=_group(frame, shared, "PlanePositionSequence") or file_place,
            orientation=_group(frame, shared, "PlaneOrientationSequence") or dataset,
            measures=_group(frame, shared, "PixelMeasuresSequence") or dataset,
            rescale=rescale or dataset,
            file=file,
            frame=index,
            is_revised=has_surplus
            or has(rescale or dataset, "RescaleSlope")
            != has(_group(frame, shared, "PixelValueTransformationSequence"), "RescaleSlope"),
            instance_number=index + 1,
            turn=(
                int(hint(content, "TemporalPositionIndex") or 0),
                int(is_phase),
                _microseconds(hint(echo, "EffectiveEchoTime")),
                int(hint(dataset, "InstanceNumber") or 0),
                file,
                index,
            ),
        )


def _frames(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Return the functional groups of each frame; surplus items without a position are dropped."""
    items = dataset.PerFrameFunctionalGroupsSequence
    count = frame_count(dataset)
    surplus = items[count:]
    if len(items) < count or any("PlanePositionSequence" in item for item in surplus):
        raise RejectedError(Reason.UNREADABLE, f"{len(items)} functional groups for {count} frames")
    return list(items[:count])


def _microseconds(time_ms: float | None) -> int:
    """Return an echo time as an integer that orders echoes, as EchoNumbers in classic files."""
    return round(min(max(time_ms or 0.0, 0.0), 1e6) * 1000)


def _slice(
    dataset: pydicom.Dataset,
    *,
    position: pydicom.Dataset,
    orientation: pydicom.Dataset,
    measures: pydicom.Dataset,
    rescale: pydicom.Dataset,
    file: int,
    frame: int,
    instance_number: int,
    turn: tuple[int, ...],
    is_revised: bool,
) -> SliceHeader:
    """Make a slice from the data sets that hold its parts: the file, or a frame's groups."""
    position_lps = required(position, "ImagePositionPatient", 3, Reason.NO_POSITION)
    if max(map(abs, position_lps)) > MAX_POSITION_MM:
        raise RejectedError(Reason.BAD_GEOMETRY, f"ImagePositionPatient {position_lps}")
    cosines = required(orientation, "ImageOrientationPatient", 6, Reason.NO_POSITION)
    row_direction, column_direction = _unit_directions(cosines)
    spacing = required(measures, "PixelSpacing", 2, Reason.BAD_GEOMETRY)
    if not all(MIN_SPACING_MM <= side <= MAX_SPACING_MM for side in spacing):
        raise RejectedError(Reason.BAD_GEOMETRY, f"PixelSpacing {spacing}")
    row_spacing_mm, column_spacing_mm = spacing
    slope, intercept = _rescale(rescale)
    thickness = hint(measures, "SpacingBetweenSlices") or hint(measures, "SliceThickness")
    return SliceHeader(
        file=file,
        frame=frame,
        rows=int(value_of(dataset, "Rows")),
        columns=int(value_of(dataset, "Columns")),
        row_spacing_mm=row_spacing_mm,
        column_spacing_mm=column_spacing_mm,
        position_lps=(position_lps[0], position_lps[1], position_lps[2]),
        row_direction=row_direction,
        column_direction=column_direction,
        instance_number=instance_number,
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        turn=turn,
        slope=slope,
        intercept=intercept,
        thickness_mm=abs(thickness) if thickness else None,
        is_revised=is_revised
        or has(rescale, "RescaleSlope") != has(rescale, "RescaleIntercept")
        or (has(dataset, "PixelPaddingValue") and _has_mixed_padding(dataset)),
    )


def _has_mixed_padding(dataset: pydicom.Dataset) -> bool:
    """Tell if padding is written with another sign than the pixels."""
    stored, allocated = bits_stored(dataset), int(dataset.BitsAllocated)
    is_signed = bool(value_of(dataset, "PixelRepresentation"))
    padding = (integer(dataset, "PixelPaddingValue"), integer(dataset, "PixelPaddingRangeLimit"))
    return any(
        one is not None and same_bits(one, stored, allocated, is_signed=is_signed) != one
        for one in padding
    )


def _unit_directions(cosines: tuple[float, ...]) -> tuple[Triple, Triple]:
    row, column = cosines[:3], cosines[3:]
    row_length, column_length = math.hypot(*row), math.hypot(*column)
    cosine = sum(a * b for a, b in zip(row, column, strict=True))
    defects = (row_length - 1, column_length - 1, cosine)
    if not all(abs(defect) <= UNIT_TOLERANCE for defect in defects):
        raise RejectedError(Reason.BAD_GEOMETRY, f"ImageOrientationPatient {cosines}")
    return (
        (row[0] / row_length, row[1] / row_length, row[2] / row_length),
        (column[0] / column_length, column[1] / column_length, column[2] / column_length),
    )


def _rescale_group(frame: pydicom.Dataset, shared: pydicom.Dataset) -> pydicom.Dataset:
    """Return the rescale group of a frame, else the shared one; empty groups are skipped."""
    for group in (frame, shared):
        sequence = value_of(group, "PixelValueTransformationSequence")
        item: pydicom.Dataset = sequence[0] if sequence else pydicom.Dataset()
        if has(item, "RescaleSlope") or has(item, "RescaleIntercept"):
            return item
    return pydicom.Dataset()


def _rescale(dataset: pydicom.Dataset) -> tuple[float, float]:
    """Return slope and intercept, 1 and 0 where they are absent."""
    slopes = numbers(dataset, "RescaleSlope", Reason.BAD_RESCALE)
    intercepts = numbers(dataset, "RescaleIntercept", Reason.BAD_RESCALE)
    if len(slopes) > 1 or len(intercepts) > 1 or 0 in slopes:
        raise RejectedError(Reason.BAD_RESCALE, f"slope {slopes}, intercept {intercepts}")
    return next(iter(slopes), 1.0), next(iter(intercepts), 0.0)


def _instance_number(dataset: pydicom.Dataset, name: str) -> int:
    """Return InstanceNumber or, without one, the number in the file's name."""
    number = hint(dataset, "InstanceNumber")
    if number is not None and abs(number) < 2**31:
        return int(number)
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 10 else 0


def _group(frame: pydicom.Dataset, shared: pydicom.Dataset, name: str) -> pydicom.Dataset:
    """Return a functional group: the frame's own, the shared one, or an empty one."""
    sequence = frame.get(name) or shared.get(name)
    return sequence[0] if sequence else pydicom.Dataset()
