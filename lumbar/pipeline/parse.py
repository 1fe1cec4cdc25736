"""The bytes of a DICOM file become a pydicom data set, with or without preamble and meta group."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lumbar.pipeline.reject import Reason, RejectedError


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
        If they are not DICOM or hold nothing.
    """
    try:
        dataset: pydicom.Dataset = pydicom.dcmread(BytesIO(data))
    except InvalidDicomError:
        dataset = _parse_bare(data)
    if not len(dataset):
        raise RejectedError(Reason.UNREADABLE, "the header holds no element")
    if not transfer_syntax(dataset):
        _complete_transfer_syntax(dataset)
    return dataset


def transfer_syntax(dataset: pydicom.Dataset) -> str:
    """Return the transfer syntax UID, or "" where the file names none."""
    return str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", ""))


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
