"""The bytes of a DICOM file become a pydicom data set, with or without preamble and meta group."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from lumbar.pipeline.dicom.elements import value_of
from lumbar.pipeline.dicom.fast_parse import parse_quickly, read_fragments
from lumbar.pipeline.reject import Reason, RejectedError, describe

MAX_FILE_BYTES = 2**30

MAX_INFLATED_BYTES = 2**28
"""Most bytes of a deflated data set. A file of a megabyte may hold a gigabyte of zeros, and pydicom
would make room for all of it."""

_CHUNK_BYTES = 2**20
HEAD_BYTES = 4096
"""Where the name of the transfer syntax stands, if there is one."""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from warning and logging about each oddity of each file."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def parse(data: bytes) -> pydicom.Dataset:
    """Parse the bytes of a DICOM file, with or without preamble and meta group.

    Raises
    ------
    RejectedError
        If they are not DICOM, hold nothing, end too early, or are deflated and too large.
    """
    quick = parse_quickly(data)
    if quick is not None:
        return quick
    try:
        if is_deflated(data[:HEAD_BYTES]):
            _check_inflated(data)
        dataset: pydicom.Dataset = pydicom.dcmread(BytesIO(data))
    except InvalidDicomError:
        dataset = _parse_bare(data)
    except OSError as error:
        # Nothing is read from a disk here: a sequence goes on where the bytes end.
        raise RejectedError(Reason.TRUNCATED, describe(error)) from error
    if not len(dataset):
        dataset = _parse_cut(data)
    if not transfer_syntax(dataset):
        _complete_transfer_syntax(dataset)
    return dataset


def is_deflated(head: bytes) -> bool:
    """Tell by the first bytes of a file if it may be deflated."""
    return DeflatedExplicitVRLittleEndian.encode() in head


def transfer_syntax(dataset: pydicom.Dataset) -> str:
    """Return the transfer syntax UID, or "" where the file names none."""
    return str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", ""))


def _check_inflated(data: bytes) -> None:
    """Inflate a deflated data set piece by piece, to know how large it is before it is kept."""
    meta, file = _read_meta(data)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    stream, rest, total = zlib.decompressobj(-zlib.MAX_WBITS), data[file.tell() :], 0
    while rest and not stream.eof:
        total += len(stream.decompress(rest, _CHUNK_BYTES))
        rest = stream.unconsumed_tail
        if total > MAX_INFLATED_BYTES:
            raise RejectedError(
                Reason.TOO_LARGE, f"inflates to more than {MAX_INFLATED_BYTES} bytes"
            )
    if not stream.eof:
        raise RejectedError(Reason.TRUNCATED, "the deflated data set has no end")


def _parse_cut(data: bytes) -> pydicom.Dataset:
    """Parse a file that ends without the delimiter behind its compressed pixels.

    pydicom returns nothing of it. Where the fragments are whole, and one at least for each frame,
    nothing is missing but the delimiter.
    """
    file = BytesIO(data)
    dataset: pydicom.Dataset = pydicom.dcmread(file, stop_before_pixels=True)
    if not len(dataset):
        if _meta_end(data) < len(data):
            raise RejectedError(Reason.TRUNCATED, "the file ends inside its header")
        raise RejectedError(Reason.UNREADABLE, "the header holds no element")
    found = read_fragments(data, file.tell())
    if found is None:
        raise RejectedError(Reason.TRUNCATED, "the file ends inside its pixels")
    value, n_fragments = found
    n_frames = int(value_of(dataset, "NumberOfFrames") or 1)
    if n_fragments < n_frames:
        raise RejectedError(Reason.TRUNCATED, f"{n_fragments} fragments of {n_frames} frames")
    dataset.add_new("PixelData", "OB", value)
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _meta_end(data: bytes) -> int:
    """Return where the meta group ends."""
    return _read_meta(data)[1].tell()


def _read_meta(data: bytes) -> tuple[pydicom.Dataset, BytesIO]:
    """Return the meta group, and the file at its end."""
    file = BytesIO(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2
    )
    return meta, file


def _parse_bare(data: bytes) -> pydicom.Dataset:
    """Parse a file without the DICM mark, and believe it only if it looks like an image object."""
    try:
        dataset = pydicom.dcmread(BytesIO(data), force=True)
        known = any(name in dataset for name in ("StudyInstanceUID", "SOPClassUID", "Rows"))
    except Exception as error:
        # Bytes that are anything at all: whatever the parser says, this is not DICOM.
        raise RejectedError(Reason.NOT_DICOM, "no DICM mark") from error
    if not known:
        raise RejectedError(Reason.NOT_DICOM, "no DICM mark")
    return dataset


def _complete_transfer_syntax(dataset: pydicom.Dataset) -> None:
    """Name the encoding that the parser recognised, where the meta group does not."""
    implicit, little = dataset.original_encoding
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    else:
        dataset.file_meta.TransferSyntaxUID = (
            ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )
