"""Why a file or series is left out of the cache: a name, a sentence and a cure for each reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lumbar.cache.errors import LumbarError

_DETAIL_LENGTH = 300


class Reason(StrEnum):
    """The reasons by their names in ``rejected.parquet``."""

    NOT_DICOM = "not_dicom"
    UNREADABLE = "unreadable"
    LINK = "link"
    ARCHIVE = "archive"
    WRONG_PLACE = "wrong_place"
    NO_UID = "no_uid"
    UNSAFE_ID = "unsafe_id"
    OTHER_SERIES = "other_series"
    NOT_AN_IMAGE = "not_an_image"
    COLOUR = "colour"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    MOSAIC = "mosaic"
    TOO_LARGE = "too_large"
    NO_POSITION = "no_position"
    BAD_GEOMETRY = "bad_geometry"
    BAD_RESCALE = "bad_rescale"
    OTHER_PLANE = "other_plane"
    REPEATED_POSITION = "repeated_position"
    TRUNCATED = "truncated"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    UNDECODABLE = "undecodable"
    CONSTANT = "constant"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    NO_FILES = "no_files"
    FAILED = "failed"


SENTENCES: dict[Reason, str] = {
    Reason.NOT_DICOM: "The file is not DICOM.",
    Reason.UNREADABLE: "The file cannot be read, or its header is damaged.",
    Reason.LINK: "A link to a folder, out of the source or to nothing: it is not followed.",
    Reason.ARCHIVE: "An archive, or a file in one, that cannot be read or is not safe to read.",
    Reason.WRONG_PLACE: "The file does not lie in a <study>/<series>/ folder.",
    Reason.NO_UID: "The header lacks StudyInstanceUID or SeriesInstanceUID.",
    Reason.UNSAFE_ID: "The study or series id cannot name a folder.",
    Reason.OTHER_SERIES: "The header names another study or series than the rest of the folder.",
    Reason.NOT_AN_IMAGE: "A DICOM object without pixels: a report, a directory, a plan.",
    Reason.COLOUR: "A colour or palette image.",
    Reason.UNSUPPORTED_PIXELS: "The pixels are not grey values of 8 or 16 bits.",
    Reason.MOSAIC: "A Siemens mosaic: many slices tiled in one picture.",
    Reason.TOO_LARGE: "The header claims more pixels than any MR image has.",
    Reason.NO_POSITION: "The header does not say where in the patient the slice lies.",
    Reason.BAD_GEOMETRY: "Position, orientation or pixel spacing makes no sense.",
    Reason.BAD_RESCALE: "Rescale slope or intercept makes no sense.",
    Reason.OTHER_PLANE: "The slice lies in another plane than the rest of its series.",
    Reason.REPEATED_POSITION: "An earlier image of the series shows the same slice.",
    Reason.TRUNCATED: "The file ends before its pixels do.",
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: "No installed decoder knows the transfer syntax.",
    Reason.UNDECODABLE: "The decoder refused the pixels.",
    Reason.CONSTANT: "Every pixel of the series has the same value.",
    Reason.CRASHED: "The decoder crashed its process.",
    Reason.TIMED_OUT: "Decoding took longer than the time limit for a series.",
    Reason.NO_FILES: "The CSV names the series, but there are no files.",
    Reason.FAILED: "An unexpected error in this one series; the detail names it.",
}


CURES: dict[Reason, str] = {
    Reason.NOT_DICOM: "check that --src is a folder of DICOM files",
    Reason.UNREADABLE: "check that the files are whole and that you may read them",
    Reason.LINK: "copy what the links lead to into the source, or name the folder of the files",
    Reason.ARCHIVE: "unpack the archives yourself and name the folder",
    Reason.WRONG_PLACE: "put the files into <images>/<study>/<series>/, or give the images folder "
    "another name: it is then read by the headers",
    Reason.NO_UID: "take files that keep StudyInstanceUID and SeriesInstanceUID",
    Reason.UNSAFE_ID: "rename the folders, or correct the UIDs of the headers",
    Reason.OTHER_SERIES: "sort the files into a folder for each series, or name a bare tree",
    Reason.NOT_AN_IMAGE: "name the folder of the images themselves",
    Reason.COLOUR: "take the original grey images in place of secondary captures",
    Reason.UNSUPPORTED_PIXELS: "take the original images of 8 or 16 bits",
    Reason.MOSAIC: "export the series as single slices",
    Reason.TOO_LARGE: "raise --max-pixels if the images are that large",
    Reason.NO_POSITION: "take files that keep ImagePositionPatient and ImageOrientationPatient",
    Reason.BAD_GEOMETRY: "take the files as the scanner wrote them, with their geometry",
    Reason.BAD_RESCALE: "take the files as the scanner wrote them, with their rescale",
    Reason.OTHER_PLANE: "sort the planes into a series each",
    Reason.REPEATED_POSITION: "remove the second copies of the images",
    Reason.TRUNCATED: "copy the files again: they end too early",
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: "convert the files to an uncompressed transfer syntax",
    Reason.UNDECODABLE: "copy the files again, or convert them to an uncompressed transfer syntax",
    Reason.CONSTANT: "take images with a picture in them",
    Reason.CRASHED: "convert the files to an uncompressed transfer syntax",
    Reason.TIMED_OUT: "raise --timeout, or put the files on a faster disk",
    Reason.NO_FILES: "bring the files of the series that the CSV names",
    Reason.FAILED: "`lumbar -vv` shows the traceback; please report it",
}
"""What a person can do if a reason costs the whole source."""

MOST_CURES = 3
"""Equally frequent reasons whose cures stand in one message."""


@dataclass(frozen=True, slots=True, order=True)
class Rejection:
    """One row of ``rejected.parquet``; ``path`` is relative to the source, "" for a series."""

    study_id: str
    series_id: str
    path: str
    reason: Reason
    detail: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Rejection:
        """Return a row of a table as it was written."""
        return cls(**{**row, "reason": Reason(row["reason"])})


class RejectedError(Exception):
    """Raised if a file or series has to be left out; whoever handles it makes it a row."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = tidy(detail)


def tidy(text: str) -> str:
    """Make a message one short line without memory addresses, so that it is equal in every run."""
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x", " ".join(text.split()))[:_DETAIL_LENGTH]


def describe(error: BaseException) -> str:
    """Return an exception's type and message as a detail."""
    return tidy(f"{type(error).__name__}: {error}")


def first_of(items: Sequence[object], most: int) -> str:
    """Name the first ``most`` of some items, for a message."""
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")


def total_loss(src: object, counts: Mapping[str, int]) -> LumbarError:
    """Return the error for a source of which nothing could be cached.

    ``counts`` are the rows of ``rejected.parquet`` by reason. The error has the sentences and cures
    of the most frequent reasons.
    """
    greatest = max(counts.values(), default=0)
    most = [reason for reason in Reason if counts.get(reason) == greatest] or [Reason.NO_FILES]
    in_order = sorted(counts.items(), key=lambda item: -item[1])
    named = ", ".join(f"{count:,} {name}" for name, count in in_order[:4])
    sentences = " ".join(SENTENCES[reason] for reason in most[:MOST_CURES])
    return LumbarError(
        what="nothing of the source could be cached",
        where=src,
        got=f"{named or 'no series'} ({sentences})",
        expected="one series or more",
        cure="; ".join(CURES[reason] for reason in most[:MOST_CURES]),
    )
