"""Parse the bytes of a DICOM file, with or without preamble and meta group."""

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

from lumbar.pipeline.dicom.elements import frame_count
from lumbar.pipeline.dicom.fast_parse import parse_quickly, read_fragments
from lumbar.pipeline.reject import Reason, RejectedError, describe

MAX_FILE_BYTES = 2**30

MAX_INFLATED_BYTES = 2**28
"""Most bytes of an inflated data set. A file of a megabyte may hold a gigabyte of zeros, for which
pydicom would allocate memory."""

_CHUNK_BYTES = 2**20
HEAD_BYTES = 4096
"""The UID of the transfer syntax stands within these first bytes, if there is one."""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from warning and logging about each oddity in each file."""
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
        If they are not DICOM, hold no element, end too early, or inflate to too many bytes.
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
        # No disk is read here: a sequence continues beyond the end of the bytes.
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
    """Return the transfer syntax UID, "" if it is absent."""
    return str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", ""))


def _check_inflated(data: bytes) -> None:
    """Inflate a data set piece by piece to find its size, without keeping it."""
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
    """Parse a file that ends before the delimiter of its compressed pixels.

    pydicom returns no element of such a file. If all fragments are whole, and there is at least one
    per frame, only the delimiter is missing.
    """
    file = BytesIO(data)
    dataset: pydicom.Dataset = pydicom.dcmread(file, stop_before_pixels=True)
    if not len(dataset):
        if _read_meta(data)[1].tell() < len(data):
            raise RejectedError(Reason.TRUNCATED, "the file ends inside its header")
        raise RejectedError(Reason.UNREADABLE, "the header holds no element")
    found = read_fragments(data, file.tell())
    if found is None:
        raise RejectedError(Reason.TRUNCATED, "the file ends inside its pixels")
    value, n_fragments = found
    n_frames = frame_count(dataset)
    if n_fragments < n_frames:
        raise RejectedError(Reason.TRUNCATED, f"{n_fragments} fragments of {n_frames} frames")
    dataset.add_new("PixelData", "OB", value)
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _read_meta(data: bytes) -> tuple[pydicom.Dataset, BytesIO]:
    """Return the meta group, and a file that is positioned at its end."""
    file = BytesIO(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2
    )
    return meta, file


def _parse_bare(data: bytes) -> pydicom.Dataset:
    """Parse a file without the DICM mark; refuse it unless it has elements of an image object."""
    try:
        dataset = pydicom.dcmread(BytesIO(data), force=True)
        known = any(name in dataset for name in ("StudyInstanceUID", "SOPClassUID", "Rows"))
    except Exception as error:
        # For arbitrary bytes the parser raises anything: they are not DICOM.
        raise RejectedError(Reason.NOT_DICOM, "no DICM mark") from error
    if not known:
        raise RejectedError(Reason.NOT_DICOM, "no DICM mark")
    return dataset


def _complete_transfer_syntax(dataset: pydicom.Dataset) -> None:
    """Set the transfer syntax to the encoding that the parser recognised."""
    implicit, little = dataset.original_encoding
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    else:
        dataset.file_meta.TransferSyntaxUID = (
            ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )
