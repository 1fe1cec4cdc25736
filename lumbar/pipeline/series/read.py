"""Read the files of one series: bytes, data sets, headers, slices in order, decoded pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pydicom

from lumbar.pipeline.dicom.contrast import (
    CONTRAST_TAGS,
    PATIENT_TAGS,
    are_alike,
    count_labels,
    most_complete,
    part_by_contrast,
    part_by_patient,
    rank_labels,
    read_contrast,
    read_patient,
)
from lumbar.pipeline.dicom.decode import Picture, decode
from lumbar.pipeline.dicom.diffusion import shows_diffusion
from lumbar.pipeline.dicom.elements import frame_count
from lumbar.pipeline.dicom.gpu_decode import find_gpu_problem
from lumbar.pipeline.dicom.header import (
    MAX_PIXELS,
    SeriesHeader,
    SliceHeader,
    read_series_header,
    read_slices,
)
from lumbar.pipeline.dicom.identity import (
    choose_identity,
    choose_patient,
    find_identities,
    is_named_by,
)
from lumbar.pipeline.dicom.parse import MAX_FILE_BYTES, parse
from lumbar.pipeline.geometry.order import Ordered, order_slices
from lumbar.pipeline.reject import Reason, RejectedError, Rejection, describe
from lumbar.pipeline.series.series_type import PLANES, find_weighting
from lumbar.pipeline.series.task import SeriesTask
from lumbar.pipeline.source.archive import read_file, split_member
from lumbar.pipeline.source.scan import is_gone

REVISION = 2
"""Part of every source hash. Raise it if this code makes other volumes of all files; for other
volumes of some files see `lumbar.pipeline.series.revisions`."""


@dataclass(slots=True)
class SeriesFiles:
    """The files of a series while they are read.

    ``datasets`` has one per file, None for a rejected one. ``mixed_contrasts`` describes how their
    contrasts differ, ``other_patients`` names the other series of the study that are of another
    patient; both are "" if there are none. ``is_revised``: caches of revision 2 hold something
    else of these files. ``ordered`` is the order of the slices, as far as these can be decoded.
    """

    task: SeriesTask
    datasets: list[pydicom.Dataset | None] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    nbytes: int = 0
    mixed_contrasts: str = ""
    other_patients: str = ""
    is_revised: bool = False
    ordered: Ordered | None = None

    def reject(self, path: str, reason: Reason, detail: str) -> None:
        """Add a row; ``path`` is "" for the whole series."""
        self.rejections.append(Rejection(*self.task.key, path, reason, detail))

    @contextmanager
    def rejecting(self, path: str) -> Iterator[None]:
        """Reject a file if what is done to it raises."""
        try:
            yield
        except RejectedError as error:
            self.reject(path, error.reason, error.detail)
        except Exception as error:
            # The edge of one file: foreign bytes make a parser or decoder raise anything.
            self.reject(path, Reason.UNREADABLE, describe(error))
        except BaseException as error:
            # A decoder in Rust raises PanicException, which is no `Exception`.
            if type(error).__name__ != "PanicException":
                raise
            self.reject(path, Reason.UNDECODABLE, describe(error))


def read_files(series: SeriesFiles) -> list[bytes | None]:
    """Read each file whole; a file that cannot be read is rejected and leaves None.

    Raises
    ------
    OSError
        If the source itself is gone.
    """
    return [_read_file(series, name) for name in series.task.files]


def _read_file(series: SeriesFiles, name: str) -> bytes | None:
    root = series.task.source
    try:
        if split_member(name) is not None:
            content = read_file(root, name, MAX_FILE_BYTES)
        elif (size := (root / name).stat().st_size) <= MAX_FILE_BYTES:
            content = (root / name).read_bytes()
        else:
            series.nbytes += size
            series.reject(name, Reason.TOO_LARGE, f"{size} bytes, more than {MAX_FILE_BYTES}")
            return None
    except RejectedError as error:
        series.reject(name, error.reason, error.detail)
        return None
    except OSError as error:
        if is_gone(root):
            raise  # the whole source is gone, not only this file
        # Of a file on disk without its path, which is this machine's.
        plain = f"{type(error).__name__}: {error.strerror or error}"
        detail = plain if split_member(name) is None else describe(error)
        series.reject(name, Reason.UNREADABLE, detail)
        return None
    series.nbytes += len(content)
    return content


def hash_source(task: SeriesTask, contents: Sequence[bytes | None]) -> str:
    """Return the hash of all that a volume is made from: names, contents, and the CSV's type."""
    total = hashlib.sha256(f"{REVISION}|{task.named}|{task.has_csv}".encode())
    if task.config.max_pixels != MAX_PIXELS:
        total.update(f"|{task.config.max_pixels}".encode())
    for name, content in zip(task.files, contents, strict=True):
        digest = hashlib.sha256(b"" if content is None else content).digest()
        total.update(f"|{name}|{-1 if content is None else len(content)}|".encode())
        total.update(digest)
    return total.hexdigest()


def refuse_files(series: SeriesFiles, contents: list[bytes | None]) -> None:
    """Reject the files that must not be parsed, and free their contents."""
    for name, reason, detail in series.task.refused:
        series.reject(name, reason, detail)
        contents[series.task.files.index(name)] = None


def parse_files(series: SeriesFiles, contents: list[bytes | None]) -> None:
    """Parse the files that could be read; a file that is no DICOM is rejected and leaves None.

    Each content is freed before the next file: a data set has its own copy.
    """
    for index, name in enumerate(series.task.files):
        dataset, content = None, contents[index]
        contents[index] = None
        with series.rejecting(name):
            dataset = None if content is None else parse(content)
        series.datasets.append(dataset)


def reject_other_series(series: SeriesFiles) -> str:
    """Reject files that name another study, series or patient than most files of the folder.

    Returns the study and series of most files if the folder has another name, else "".
    """
    task = series.task
    identities = find_identities(series.datasets)
    chosen = choose_identity(identities, *task.key)
    if chosen is None:
        return ""
    for index, (name, identity) in enumerate(zip(task.files, identities, strict=True)):
        if identity is not None and not identity.agrees_with(chosen):
            series.reject(name, Reason.OTHER_SERIES, f"{identity}, the others {chosen}")
            series.datasets[index] = None
    _reject_other_patients(series)
    return "" if is_named_by(chosen, *task.key) else str(chosen)


def _reject_other_patients(series: SeriesFiles) -> None:
    """Reject files of another patient than most; names of patients are not recorded."""
    there = [(i, dataset) for i, dataset in enumerate(series.datasets) if dataset is not None]
    if are_alike([dataset for _, dataset in there], PATIENT_TAGS):
        return
    labels = part_by_patient([read_patient(dataset) for _, dataset in there])
    if len(set(labels)) == 1:
        return
    chosen = choose_patient(labels)
    series.is_revised = True
    for (index, _), label in zip(there, labels, strict=True):
        if label != chosen:
            detail = "another patient than most files of the series"
            series.reject(series.task.files[index], Reason.OTHER_SERIES, detail)
            series.datasets[index] = None


def read_headers(series: SeriesFiles) -> tuple[list[SliceHeader], SeriesHeader | None]:
    """Return the slices of all files, and the properties of the series by most of them."""
    slices_of: list[list[SliceHeader]] = []
    images: list[pydicom.Dataset] = []
    max_pixels = series.task.config.max_pixels
    for index, (name, dataset) in enumerate(zip(series.task.files, series.datasets, strict=True)):
        if dataset is not None:
            with series.rejecting(name):
                slices = read_slices(dataset, file=index, name=name, max_pixels=max_pixels)
                slices_of.append(slices)
                images.append(dataset)
    if not images:
        return [], None
    described = _describe(series, images, slices_of)
    return [header for slices in slices_of for header in slices], described


def _describe(
    series: SeriesFiles, images: Sequence[pydicom.Dataset], slices_of: list[list[SliceHeader]]
) -> SeriesHeader:
    """Return the properties of a series by most images; number the contrasts of its slices."""
    first = images[0]
    if not are_alike(images, CONTRAST_TAGS):
        contrasts = [read_contrast(image) for image in images]
        labels = part_by_contrast(contrasts)
        ranked = rank_labels(labels, [slices[0].turn for slices in slices_of])
        if len(ranked) > 1:
            series.mixed_contrasts = count_labels(labels)
            series.is_revised |= _repeat_positions(slices_of)
            slices_of[:] = [
                [replace(header, contrast=ranked.index(label)) for header in slices]
                for slices, label in zip(slices_of, labels, strict=True)
            ]
        first = images[most_complete(contrasts, labels, ranked[0])]
        series.is_revised |= first is not images[0]
    described = _read_first([first, *images])
    if any(map(_may_diffuse, images)):
        series.is_revised |= find_weighting(described) != ""
        return replace(described, is_diffusion=True)
    return described


def _read_first(images: Sequence[pydicom.Dataset]) -> SeriesHeader:
    """Return the properties of a series by the first image whose elements can be read."""
    for image in images[:-1]:
        try:
            return read_series_header(image)
        except Exception:
            continue  # the edge of one file: its elements are damaged, its picture may be whole
    return read_series_header(images[-1])


def _may_diffuse(image: pydicom.Dataset) -> bool:
    try:
        return shows_diffusion(image)
    except Exception:
        return False  # the edge of one file: its elements are damaged


def _repeat_positions(slices_of: Sequence[Sequence[SliceHeader]]) -> bool:
    """Tell if any two slices have one position."""
    positions = [header.position_lps for slices in slices_of for header in slices]
    return len(set(positions)) < len(positions)


def order_headers(series: SeriesFiles, headers: Sequence[SliceHeader]) -> Ordered:
    """Order the slices, in the plane of the CSV's type if there is one."""
    named = series.task.named
    series.ordered = order_slices(headers, PLANES.get(named) if named else None)
    return series.ordered


def order_and_decode(
    series: SeriesFiles, headers: Sequence[SliceHeader]
) -> tuple[Ordered, dict[SliceHeader, Picture]]:
    """Order the slices, unless `order_headers` did, and decode those that are kept.

    A slice that cannot be decoded is rejected and the rest is ordered again: another image of the
    same position may take its place.
    """
    pictures: dict[SliceHeader, Picture] = {}
    remaining = list(headers)
    ordered = series.ordered or order_headers(series, remaining)
    while True:
        failed = [
            header
            for header in ordered.headers
            if header not in pictures and not _decode_into(pictures, series, header)
        ]
        if not failed:
            return ordered, pictures
        remaining = [header for header in remaining if header not in failed]
        ordered = order_headers(series, remaining)


def _decode_into(
    pictures: dict[SliceHeader, Picture], series: SeriesFiles, header: SliceHeader
) -> bool:
    """Decode a slice; return False if it is rejected."""
    dataset = series.datasets[header.file]
    assert dataset is not None
    with series.rejecting(series.task.files[header.file]):
        on_gpu = series.task.config.decode == "gpu" and not find_gpu_problem()
        pictures[header] = decode(dataset, header.frame, on_gpu=on_gpu)
    if header not in pictures:
        return False
    if frame_count(dataset) == 1:
        del dataset.PixelData  # compressed pixels are needed once
    return True


def reject_left_out(series: SeriesFiles, ordered: Ordered) -> None:
    """Add one row per file and reason, however many of its frames are left out."""
    found: dict[tuple[str, Reason], list[str]] = {}
    for left_out in ordered.left_out:
        name = series.task.files[left_out.header.file]
        found.setdefault((name, left_out.reason), []).append(left_out.detail)
    for (name, reason), details in found.items():
        many = f"{len(details)} frames, the first: " if len(details) > 1 else ""
        series.reject(name, reason, many + details[0])
