"""Which slice does a point mean by its ``instance_number``? In the data set's layout, the file's.

The data set names its files ``<instance_number>.dcm``. Where header and file name differ, the name
decides: a point was drawn on a file. One on a file that was left out, because another shows the
same place in the patient, belongs to that other.
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
from lumbar.pipeline.geometry.order import POSITION_TOLERANCE_MM
from lumbar.pipeline.geometry.orient import centre_of, normal_of
from lumbar.pipeline.series.files import SeriesTask

MOST_NAMED = 5
"""Files and numbers that the detail of a flag names."""

PARALLEL_DEGREES = 1.0
"""Two slices with one centre are one place if they are not turned further: 1.4 mm at the edge of a
picture of 160 mm, less than its slices are thick."""

_NUMBER = re.compile(r"0*([0-9]{1,9})(?:\.[A-Za-z][A-Za-z0-9]{0,7})?")

Numbered = dict[int, list[SliceHeader]]
"""The slices that a number may mean, cached or not."""


@dataclass(frozen=True, slots=True)
class Images:
    """The slices of a series by their numbers, and where name and header differ.

    ``is_taken``: a file is named by the number that another's header has.
    """

    by_number: Numbered
    differing: tuple[str, ...]
    is_taken: bool

    @property
    def agree(self) -> bool:
        """Tell if the headers say all: each number is that of the file's name, and comes once."""
        is_single = all(len(found) == 1 for found in self.by_number.values())
        return is_single and not self.differing and not self.is_taken


def number_of_name(path: str) -> int | None:
    """Return the number that a file is named by, such as 3 for ``100/7/003.dcm``, or None."""
    found = _NUMBER.fullmatch(PurePosixPath(path).name)
    return int(found[1]) if found else None


def number_images(task: SeriesTask, headers: Sequence[SliceHeader]) -> Images:
    """Return the slices of a series of the data set by the numbers that points name them by.

    A number is that of the file's name. A file that is not named by a number keeps InstanceNumber,
    unless another file is named so, be it one that cannot be read. Frames of one file are told by
    their number in it.
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
    return Images({**others, **named, **taken}, tuple(differing), bool(taken))


def say_images(
    attributes: VolumeAttributes,
    task: SeriesTask,
    headers: Sequence[SliceHeader],
    kept: Sequence[SliceHeader],
) -> VolumeAttributes:
    """Add to what a volume says of itself which slice each number means, and what is unclear.

    ``headers`` are all that were read, ``kept`` the slices of the volume in their order. Outside of
    the data set's layout no table names images by numbers, and nothing is added.
    """
    if not task.by_folder:
        return attributes
    images = number_images(task, headers)
    place = {header: d for d, header in enumerate(kept)}
    grids = {
        number: _grids(attributes, found, kept, place) for number, found in images.by_number.items()
    }
    notes = _notes(images, grids, kept)
    says = bool(task.refused) or must_say(images, len(headers) - len(kept))
    return replace(
        attributes,
        image_grids=grids if says else {},
        flags=(*attributes.flags, *map(str, notes)),
        flag_details={
            **attributes.flag_details,
            **{str(flag): text for flag, text in notes.items()},
        },
    )


def must_say(images: Images, n_left_out: int) -> bool:
    """Tell whether a volume of the data set has to say which slice each of its numbers means.

    It need not where its headers agree with the names of the files, and all of them are slices.
    """
    return not images.agree or n_left_out > 0


def _grids(
    attributes: VolumeAttributes,
    found: Sequence[SliceHeader],
    kept: Sequence[SliceHeader],
    place: Mapping[SliceHeader, int],
) -> tuple[SourceGrid, ...]:
    """Return the grids of a number's slices, or of the slices at their places; each slice once."""
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
    """Return the slice of the volume that shows the place of one that was left out, if any does."""
    centre, normal = centre_of(header), normal_of(header)
    for d, other in enumerate(kept):
        is_near = np.linalg.norm(centre_of(other) - centre) < POSITION_TOLERANCE_MM
        if is_near and abs(normal @ normal_of(other)) >= np.cos(np.radians(PARALLEL_DEGREES)):
            return d
    return None


def _lies_otherwise(one: SliceHeader, other: SliceHeader) -> bool:
    """Tell if the pixels of two slices of one place lie otherwise, in size, spacing or turn."""

    def lies(header: SliceHeader) -> tuple[object, ...]:
        return (
            *(header.rows, header.columns, header.row_spacing_mm, header.column_spacing_mm),
            *(header.row_direction, header.column_direction),
        )

    return lies(one) != lies(other)


def _to_pixels_of(kept: SliceHeader, twin: SliceHeader) -> Float[np.ndarray, "3 3"]:
    """Return the matrix from ``(x, y, 1)`` of a twin to that of the slice in its place."""
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
    images: Images, grids: Mapping[int, Sequence[SourceGrid]], kept: Sequence[SliceHeader]
) -> Notes:
    """Name files whose header has another number, and numbers that more than one slice has."""
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
