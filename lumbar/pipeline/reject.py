"""Why a file or series is left out of the cache: one name and one sentence for each reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_DETAIL_LENGTH = 300


class Reason(StrEnum):
    """The reasons, as they stand in ``rejected.parquet``."""

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
    Reason.UNSUPPORTED_PIXELS: "Pixels that are no grey values of 8 or 16 bits.",
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
    Reason.CRASHED: "The decoder took its whole process down.",
    Reason.TIMED_OUT: "Decoding did not end within the time that a series has.",
    Reason.NO_FILES: "The CSV names the series, but there are no files.",
    Reason.FAILED: "An unforeseen failure in this one series; the detail has its cause.",
}


@dataclass(frozen=True, slots=True, order=True)
class Rejection:
    """One row of ``rejected.parquet``; ``path`` is relative to the source, "" for a series."""

    study_id: str
    series_id: str
    path: str
    reason: Reason
    detail: str


class RejectedError(Exception):
    """Raised where a file or series has to be left out; caught at its edge and made a row."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = tidy(detail)


def tidy(text: str) -> str:
    """Make a message one short line that is the same in every run: no addresses in memory."""
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x", " ".join(text.split()))[:_DETAIL_LENGTH]


def describe(error: BaseException) -> str:
    """Return an exception's type and message as a detail."""
    return tidy(f"{type(error).__name__}: {error}")
