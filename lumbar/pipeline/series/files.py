"""The files of one series as they are read: bytes, data sets, headers, pictures, rejections."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pydicom

from lumbar.cache.names import SeriesType
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.dicom.contrast import (
    CONTRAST_TAGS,
    PATIENT_TAGS,
    are_alike,
    count_labels,
    find_spokesman,
    part_by_contrast,
    part_by_patient,
    rank_kinds,
    read_contrast,
    read_patient,
)
from lumbar.pipeline.dicom.decode import Picture, decode
from lumbar.pipeline.dicom.diffusion import shows_diffusion
from lumbar.pipeline.dicom.elements import value_of
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
from lumbar.pipeline.geometry.classify import PLANES, find_weighting
from lumbar.pipeline.geometry.order import Ordered, order_slices
from lumbar.pipeline.reject import Reason, RejectedError, Rejection, describe
from lumbar.pipeline.source.archive import Member, read_member, split_member
from lumbar.pipeline.source.scan import is_gone

REVISION = 2
"""Part of every source hash: raise it when this code makes other volumes of all files. Where it
makes other volumes of some, see `lumbar.pipeline.series.revisions`."""


@dataclass(frozen=True, slots=True)
class SeriesTask:
    """What a worker has to know; ``files`` are relative to ``source``, ``named`` is the CSV's type.

    ``has_csv`` says that there is a descriptions CSV, whether it names this series or not.
    ``by_folder`` says that this is the data set's layout, where files are named by their numbers;
    ``companions`` are then files of the other series of the study, one of each.
    ``knows_left_out`` says that the rows of files left out of stored series are known from a
    finished run, so that such a series need not be decoded again to find them. ``shares_uid``: the
    UID of the series or of its study stands for others too. ``refused`` are
    files that are not to be parsed, with reason and detail: they took a process down.
    """

    study_id: str
    series_id: str
    source: Path
    files: tuple[str, ...]
    named: SeriesType | None
    has_csv: bool
    cache: Path
    config: PreprocessConfig
    knows_left_out: bool = False
    shares_uid: bool = False
    refused: tuple[tuple[str, Reason, str], ...] = ()
    by_folder: bool = False
    companions: tuple[str, ...] = ()


@dataclass(slots=True)
class Source:
    """The files of a series as they are read: data sets (None: rejected) and rows.

    ``mixed_contrasts`` says how their contrasts differ, ``other_patients`` which other series of
    the study are of another patient, "" where none do. ``is_revised``: they are taken for something
    else than caches of revision 2 took them for. ``ordered`` is the order of their slices, as far
    as these can be decoded.
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
        """Add a row; ``path`` "" stands for the whole series."""
        self.rejections.append(
            Rejection(self.task.study_id, self.task.series_id, path, reason, detail)
        )


def read_files(source: Source) -> list[bytes | None]:
    """Read each file whole; a file that cannot be read is rejected and leaves None.

    Raises
    ------
    OSError
        If the source itself is gone.
    """
    contents: list[bytes | None] = []
    for name in source.task.files:
        member = split_member(name)
        if member is not None:
            contents.append(_read_member(source, name, member))
            continue
        path = source.task.source / name
        try:
            size = path.stat().st_size
            contents.append(path.read_bytes() if size <= MAX_FILE_BYTES else None)
        except OSError as error:
            if is_gone(source.task.source):
                raise  # the whole source is gone: no property of this file
            source.reject(name, Reason.UNREADABLE, f"{type(error).__name__}: {error.strerror}")
            contents.append(None)
            continue
        source.nbytes += size
        if size > MAX_FILE_BYTES:
            source.reject(name, Reason.TOO_LARGE, f"{size} bytes, more than {MAX_FILE_BYTES}")
    return contents


def _read_member(source: Source, name: str, member: Member) -> bytes | None:
    """Read a file that an archive holds; one that cannot be read is rejected and is None."""
    try:
        content = read_member(source.task.source, member, MAX_FILE_BYTES)
    except RejectedError as error:
        source.reject(name, error.reason, error.detail)
        return None
    except OSError as error:
        if is_gone(source.task.source):
            raise  # the whole source is gone: no property of this file
        source.reject(name, Reason.UNREADABLE, describe(error))
        return None
    source.nbytes += len(content)
    return content


def hash_source(task: SeriesTask, contents: Sequence[bytes | None]) -> str:
    """Return the hash of all that a volume is made from: names, contents, the CSV's word."""
    total = hashlib.sha256(f"{REVISION}|{task.named}|{task.has_csv}".encode())
    if task.config.max_pixels != MAX_PIXELS:
        total.update(f"|{task.config.max_pixels}".encode())
    for name, content in zip(task.files, contents, strict=True):
        digest = hashlib.sha256(b"" if content is None else content).digest()
        total.update(f"|{name}|{-1 if content is None else len(content)}|".encode())
        total.update(digest)
    return total.hexdigest()


def refuse_files(source: Source, contents: list[bytes | None]) -> None:
    """Reject the files that are not to be parsed, and let go of what was read of them."""
    for name, reason, detail in source.task.refused:
        source.reject(name, reason, detail)
        contents[source.task.files.index(name)] = None


def parse_files(source: Source, contents: list[bytes | None]) -> None:
    """Parse the files that could be read; one that is no DICOM is rejected and leaves None.

    Contents are let go of one by one: a data set has its own copy, and no series is held twice.
    """
    for index, name in enumerate(source.task.files):
        dataset, content = None, contents[index]
        contents[index] = None
        try:
            dataset = None if content is None else parse(content)
        except RejectedError as error:
            source.reject(name, error.reason, error.detail)
        except Exception as error:
            # The edge of one file: a parser of foreign bytes raises whatever it likes.
            source.reject(name, Reason.UNREADABLE, describe(error))
        source.datasets.append(dataset)


def reject_strangers(source: Source) -> str:
    """Reject files that name another study or series than most of the folder.

    Returns what most of them name where the folder is called otherwise, "" where they agree.
    """
    task = source.task
    identities = find_identities(source.datasets)
    chosen = choose_identity(identities, task.study_id, task.series_id)
    if chosen is None:
        return ""
    for index, (name, identity) in enumerate(zip(task.files, identities, strict=True)):
        if identity is not None and not identity.agrees_with(chosen):
            source.reject(name, Reason.OTHER_SERIES, f"{identity}, the others {chosen}")
            source.datasets[index] = None
    _reject_other_patients(source)
    return "" if is_named_by(chosen, task.study_id, task.series_id) else str(chosen)


def _reject_other_patients(source: Source) -> None:
    """Reject files of another patient than most; names of patients are not written down."""
    there = [(i, dataset) for i, dataset in enumerate(source.datasets) if dataset is not None]
    if are_alike([dataset for _, dataset in there], PATIENT_TAGS):
        return
    labels = part_by_patient([read_patient(dataset) for _, dataset in there])
    if len(set(labels)) == 1:
        return
    chosen = choose_patient(labels)
    source.is_revised = True
    for (index, _), label in zip(there, labels, strict=True):
        if label != chosen:
            detail = "another patient than most files of the series"
            source.reject(source.task.files[index], Reason.OTHER_SERIES, detail)
            source.datasets[index] = None


def read_headers(source: Source) -> tuple[list[SliceHeader], SeriesHeader | None]:
    """Return the slices of all files, and what most of these files say of the series."""
    slices_of: list[list[SliceHeader]] = []
    images: list[pydicom.Dataset] = []
    for index, (name, dataset) in enumerate(zip(source.task.files, source.datasets, strict=True)):
        if dataset is None:
            continue
        try:
            slices = read_slices(
                dataset, file=index, name=name, max_pixels=source.task.config.max_pixels
            )
            slices_of.append(slices)
            images.append(dataset)
        except RejectedError as error:
            source.reject(name, error.reason, error.detail)
        except Exception as error:
            # The edge of one file: damaged elements fail only when they are looked at.
            source.reject(name, Reason.UNREADABLE, describe(error))
    if not images:
        return [], None
    described = _describe(source, images, slices_of)
    return [header for slices in slices_of for header in slices], described


def _describe(
    source: Source, images: Sequence[pydicom.Dataset], slices_of: list[list[SliceHeader]]
) -> SeriesHeader:
    """Return what most images say of their series; note where they differ, in the slices too."""
    spokesman = images[0]
    if not are_alike(images, CONTRAST_TAGS):
        contrasts = [read_contrast(image) for image in images]
        labels = part_by_contrast(contrasts)
        kinds = rank_kinds(labels, [slices[0].turn for slices in slices_of])
        if len(kinds) > 1:
            source.mixed_contrasts = count_labels(labels)
            source.is_revised |= _repeat_positions(slices_of)
            slices_of[:] = [
                [replace(header, contrast=kinds.index(label)) for header in slices]
                for slices, label in zip(slices_of, labels, strict=True)
            ]
        spokesman = images[find_spokesman(contrasts, labels, kinds[0])]
        source.is_revised |= spokesman is not images[0]
    described = _read_first([spokesman, *images])
    if any(map(_may_diffuse, images)):
        source.is_revised |= find_weighting(described) != ""
        return replace(described, is_diffusion=True)
    return described


def _read_first(images: Sequence[pydicom.Dataset]) -> SeriesHeader:
    """Return what the first image says of its series that can be read."""
    for image in images[:-1]:
        try:
            return read_series_header(image)
        except Exception:
            continue  # the edge of one file: damaged elements, whose picture may be whole
    return read_series_header(images[-1])


def _may_diffuse(image: pydicom.Dataset) -> bool:
    try:
        return shows_diffusion(image)
    except Exception:
        return False  # the edge of one file: a damaged element says nothing


def _repeat_positions(slices_of: Sequence[Sequence[SliceHeader]]) -> bool:
    """Tell if any two slices have one position."""
    positions = [header.position_lps for slices in slices_of for header in slices]
    return len(set(positions)) < len(positions)


def order_headers(source: Source, headers: Sequence[SliceHeader]) -> Ordered:
    """Order the slices in the plane that the CSV says, where it does."""
    named = source.task.named
    source.ordered = order_slices(headers, PLANES.get(named) if named else None)
    return source.ordered


def order_and_decode(
    source: Source, headers: Sequence[SliceHeader]
) -> tuple[Ordered, dict[SliceHeader, Picture]]:
    """Order the slices, unless `order_headers` has, and decode those that are kept.

    A slice that cannot be decoded is rejected and the rest ordered again, so that an image that
    repeats its position can take its place.
    """
    pictures: dict[SliceHeader, Picture] = {}
    remaining = list(headers)
    ordered = source.ordered or order_headers(source, remaining)
    while True:
        failed = [
            header
            for header in ordered.headers
            if header not in pictures and not _decode_into(pictures, source, header)
        ]
        if not failed:
            return ordered, pictures
        remaining = [header for header in remaining if header not in failed]
        ordered = order_headers(source, remaining)


def _decode_into(pictures: dict[SliceHeader, Picture], source: Source, header: SliceHeader) -> bool:
    dataset = source.datasets[header.file]
    assert dataset is not None
    try:
        on_gpu = source.task.config.decode == "gpu" and not find_gpu_problem()
        pictures[header] = decode(dataset, header.frame, on_gpu=on_gpu)
    except RejectedError as error:
        source.reject(source.task.files[header.file], error.reason, error.detail)
        return False
    except Exception as error:
        # The edge of one file: what surrounds the pixels may be damaged too.
        source.reject(source.task.files[header.file], Reason.UNREADABLE, describe(error))
        return False
    except BaseException as error:
        # A decoder in Rust panics with an exception of its own, beside the tree of others.
        if type(error).__name__ != "PanicException":
            raise
        source.reject(source.task.files[header.file], Reason.UNDECODABLE, describe(error))
        return False
    if int(value_of(dataset, "NumberOfFrames") or 1) == 1:
        del dataset.PixelData  # compressed pixels are needed once
    return True


def reject_left_out(source: Source, ordered: Ordered) -> None:
    """Add one row for each file and reason, however many of its frames are left out."""
    found: dict[tuple[str, Reason], list[str]] = {}
    for left_out in ordered.left_out:
        name = source.task.files[left_out.header.file]
        found.setdefault((name, left_out.reason), []).append(left_out.detail)
    for (name, reason), details in found.items():
        many = f"{len(details)} frames, the first: " if len(details) > 1 else ""
        source.reject(name, reason, many + details[0])
