"""Which slice does a point's ``instance_number`` mean? In the data set's layout: the file's slice.

The data set names its files ``<instance_number>.dcm``. If header and file name differ, the name
decides: points were annotated on files. A point on a file that was left out, because another file
shows the same position, is placed on that other slice.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float

from lumbar.cache.format import SourceGrid, VolumeAttributes
from lumbar.pipeline.dicom.header import SliceHeader
from lumbar.pipeline.flags import Flag, Notes
from lumbar.pipeline.geometry.orient import POSITION_TOLERANCE_MM, centre_of, normal_of
from lumbar.pipeline.series.task import SeriesTask

MOST_NAMED = 5
"""Files and numbers that the detail of a flag names."""

PARALLEL_DEGREES = 1.0
"""Two slices with one centre have one position if their angle is at most this: 1.4 mm at the edge
of a picture of 160 mm, less than a slice's thickness."""

_NUMBER = re.compile(r"0*([0-9]{1,9})(?:\.[A-Za-z][A-Za-z0-9]{0,7})?")


@dataclass(frozen=True, slots=True)
class NumberedSlices:
    """The slices of a series by their numbers, cached or not.

    ``differing`` describes the files whose name and header differ. ``is_taken``: the name of one
    file has the number in the header of another.
    """

    by_number: dict[int, list[SliceHeader]]
    differing: tuple[str, ...]
    is_taken: bool

    @property
    def agree(self) -> bool:
        """Tell if all numbers in headers equal those in file names, and each occurs once."""
        is_single = all(len(found) == 1 for found in self.by_number.values())
        return is_single and not self.differing and not self.is_taken


def number_of_name(path: str) -> int | None:
    """Return the number in a file's name, such as 3 for ``100/7/003.dcm``, or None."""
    found = _NUMBER.fullmatch(PurePosixPath(path).name)
    return int(found[1]) if found else None


def number_images(task: SeriesTask, headers: Sequence[SliceHeader]) -> NumberedSlices:
    """Return the slices of a series of the data set by the numbers that points use.

    That is the number in the file's name. A file without one has its InstanceNumber, unless the
    name of another file, readable or not, has that number. Frames of one file are numbered in it.
    """
    frames = defaultdict[int, int](int)
    for header in headers:
        frames[header.file] += 1
    named, others = defaultdict(list), defaultdict(list)
    differing: list[str] = []
    for header in headers:
        path = task.files[header.file]
        number = number_of_name(path) if frames[header.file] == 1 else None
        if number is None:
            others[header.instance_number].append(header)
            continue
        named[number].append(header)
        if number != header.instance_number:
            differing.append(f"{PurePosixPath(path).name} is {header.instance_number}")
    names = {number_of_name(path) for file, path in enumerate(task.files) if frames[file] <= 1}
    taken = {number: named[number] for number in others if number in names}
    return NumberedSlices({**others, **named, **taken}, tuple(differing), bool(taken))


def add_image_grids(
    attributes: VolumeAttributes,
    task: SeriesTask,
    headers: Sequence[SliceHeader],
    kept: Sequence[SliceHeader],
) -> VolumeAttributes:
    """Add to a volume's attributes the slice of each number, and flags for unclear numbers.

    ``headers`` are all slices that were read, ``kept`` those of the volume in their order. Outside
    the data set's layout no table uses numbers of images, and nothing is added.
    """
    if not task.by_folder:
        return attributes
    images = number_images(task, headers)
    place = {header: d for d, header in enumerate(kept)}
    grids = {
        number: _grids(attributes, found, kept, place) for number, found in images.by_number.items()
    }
    notes = _notes(images, grids, kept)
    is_needed = bool(task.refused) or needs_grids(images, len(headers) - len(kept))
    return replace(
        attributes,
        image_grids=grids if is_needed else {},
        flags=(*attributes.flags, *map(str, notes)),
        flag_details={
            **attributes.flag_details,
            **{str(flag): text for flag, text in notes.items()},
        },
    )


def needs_grids(images: NumberedSlices, n_left_out: int) -> bool:
    """Tell whether a volume of the data set has to store the slice of each number.

    It need not if headers and file names agree and no slice was left out.
    """
    return not images.agree or n_left_out > 0


def _grids(
    attributes: VolumeAttributes,
    found: Sequence[SliceHeader],
    kept: Sequence[SliceHeader],
    place: Mapping[SliceHeader, int],
) -> tuple[SourceGrid, ...]:
    """Return the grids of a number's slices, or of kept slices at their positions, each once."""
    grids: dict[int, SourceGrid] = {}
    for header in found:
        d = place[header] if header in place else _find_twin(header, kept)
        if d is None:
            continue
        grid = attributes.grid_of(d)
        matrix = grid.matrix
        if kept[d] is not header and _lies_otherwise(header, kept[d]):
            matrix = matrix @ _to_pixels_of(kept[d], header)
        picture = (header.rows, header.columns)
        grids.setdefault(d, SourceGrid(d, d + 1, matrix, picture))
    return tuple(grids[d] for d in sorted(grids))


def _find_twin(header: SliceHeader, kept: Sequence[SliceHeader]) -> int | None:
    """Return the slice of the volume at the position of one that was left out, or None."""
    centre, normal = centre_of(header), normal_of(header)
    for d, other in enumerate(kept):
        is_near = np.linalg.norm(centre_of(other) - centre) < POSITION_TOLERANCE_MM
        if is_near and abs(normal @ normal_of(other)) >= np.cos(np.radians(PARALLEL_DEGREES)):
            return d
    return None


def _lies_otherwise(one: SliceHeader, other: SliceHeader) -> bool:
    """Tell if the pixels of two slices at one position differ in number, spacing or direction."""
    lengths = ("rows", "columns", "row_spacing_mm", "column_spacing_mm")
    directions = ("row_direction", "column_direction")
    return any(getattr(one, n) != getattr(other, n) for n in (*lengths, *directions))


def _to_pixels_of(kept: SliceHeader, twin: SliceHeader) -> Float[np.ndarray, "3 3"]:
    """Return the matrix from ``(x, y, 1)`` of a twin to that of the kept slice."""
    along, down = np.array(kept.row_direction), np.array(kept.column_direction)
    steps = np.stack(
        [
            np.array(twin.row_direction) * twin.column_spacing_mm,
            np.array(twin.column_direction) * twin.row_spacing_mm,
            np.array(twin.position_lps) - np.array(kept.position_lps),
        ],
        axis=1,
    )
    rows = [along @ steps / kept.column_spacing_mm, down @ steps / kept.row_spacing_mm]
    return np.stack([*rows, np.array([0.0, 0.0, 1.0])])


def _notes(
    images: NumberedSlices, grids: Mapping[int, Sequence[SourceGrid]], kept: Sequence[SliceHeader]
) -> Notes:
    """Flag files whose header has another number, and numbers of more than one slice."""
    notes: Notes = {}
    if images.differing:
        notes[Flag.NUMBER_DISAGREES] = _first(images.differing)
    by_header = Counter(header.instance_number for header in kept)
    repeated = {number for number, count in by_header.items() if count > 1}
    repeated |= {number for number, found in grids.items() if len(found) > 1}
    if repeated:
        notes[Flag.REPEATED_NUMBERS] = _first([str(number) for number in sorted(repeated)])
    return notes


def _first(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return ", ".join(texts[:MOST_NAMED]) + more
