"""Parse common DICOM files in one pass; pydicom parses all others.

Common files have a preamble, a meta group with its length, and explicit VR little endian. The
result is None for a file with a sequence of undefined length, an unknown VR or a truncated value.
Otherwise it equals pydicom's, in a fifth of the time; that is tested on every file at hand.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import Any

import pydicom
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import (
    DataElement,
    RawDataElement,
    convert_raw_data_element,
    empty_value_for_VR,
)
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from lumbar.pipeline.dicom.elements import tag_of

META_START = 132
"""After the preamble and the letters DICM."""

UNDEFINED = 0xFFFFFFFF
META_GROUP = 0x0002
META_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
CHARACTER_SET, PIXEL_DATA, TRANSFER_SYNTAX = 0x00080005, 0x7FE00010, 0x00020010
ITEM, DELIMITER = 0xE000FFFE, 0xE0DDFFFE
"""As one little endian number."""
DELIMITER_BYTES = b"\xfe\xff\xdd\xe0\0\0\0\0"

REPEATED = frozenset(
    int(Tag(keyword))
    for keyword in (
        "BitsAllocated",
        "BitsStored",
        "Columns",
        "EchoNumbers",
        "EchoTime",
        "HighBit",
        "ImageOrientationPatient",
        "ImageType",
        "NumberOfFrames",
        "PhotometricInterpretation",
        "PixelPaddingValue",
        "PixelRepresentation",
        "PixelSpacing",
        "RepetitionTime",
        "RescaleIntercept",
        "RescaleSlope",
        "Rows",
        "SOPClassUID",
        "SamplesPerPixel",
        "SeriesInstanceUID",
        "SliceThickness",
        "SpacingBetweenSlices",
        "StudyInstanceUID",
        "TemporalPositionIdentifier",
    )
)
"""Elements that the pipeline reads from every file, with values that most files of a series have.
There are no texts: decoding them depends on the file's character set."""

MOST_KNOWN = 10_000
"""Converted values that are kept; at this number all are dropped."""

LONGEST_KNOWN = 256

_element = Struct("<HH2sH").unpack_from
_long_length = Struct("<L").unpack_from
_item = Struct("<LL").unpack_from

_SHORT = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_16}
_LONG = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_32}
_READ = {
    str(uid).encode(): uid
    for uid in AllTransferSyntaxes
    if uid == ExplicitVRLittleEndian
    or (uid.is_encapsulated and uid != DeflatedExplicitVRLittleEndian)
}

_known: dict[tuple[int, str, bytes], DataElement] = {}


def parse_quickly(data: bytes) -> pydicom.Dataset | None:
    """Parse the bytes of a common DICOM file; return None for any other.

    ``file_meta`` holds only the transfer syntax.
    """
    body = META_START + len(META_LENGTH) + 4
    if data[128 : body - 4] != b"DICM" + META_LENGTH or len(data) < body:
        return None
    start = body + _long_length(data, body - 4)[0]
    if start > len(data):
        return None
    meta = _read_elements(data, META_START, start)
    syntax = meta.get(tag_of(TRANSFER_SYNTAX)) if meta else None
    uid = _READ.get(syntax.value.rstrip(b"\0 ")) if syntax and syntax.value else None
    if uid is None or meta is None or max(meta) >> 16 != META_GROUP:
        return None
    elements = _read_elements(data, start, len(data))
    if not elements or min(elements) >> 16 <= META_GROUP:
        return None
    dataset = pydicom.Dataset(elements)
    dataset.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=_encoding(elements)
    )
    dataset.file_meta = _file_meta(uid)
    return dataset


def _read_elements(data: bytes, start: int, stop: int) -> dict[BaseTag, Any] | None:
    """Return the elements between two offsets by tag; None if they do not fill it exactly."""
    elements: dict[BaseTag, Any] = {}
    while start + 8 <= stop:
        group, number, vr, length = _element(data, start)
        start += 8
        name = _SHORT.get(vr)
        if name is None:
            name = _LONG.get(vr)
            if name is None or start + 4 > stop:
                return None
            length = _long_length(data, start)[0]
            start += 4
        tag = tag_of(group << 16 | number)
        end = start + length
        if length == UNDEFINED:
            end = _find_delimiter(data, start, stop) if tag == PIXEL_DATA else -1
            value: Any = data[start:end]
            after = end + 8
        else:
            value = data[start:end] if length else empty_value_for_VR(name, raw=True)
            after = end
        if not start <= end <= after <= stop:
            return None
        raw = RawDataElement(tag, name, length, value, start, False, True)  # noqa: FBT003
        elements[tag] = _convert(raw) if tag in REPEATED else raw
        start = after
    return elements if start == stop else None


def _find_delimiter(data: bytes, start: int, stop: int) -> int:
    """Return the offset of the delimiter after encapsulated pixels, -1 for damaged items."""
    while start + 8 <= stop:
        tag, length = _item(data, start)
        if tag == DELIMITER:
            return start if length == 0 else -1
        if tag != ITEM or length == UNDEFINED:
            return -1
        start += 8 + length
    return -1


def read_fragments(data: bytes, start: int) -> tuple[bytes, int] | None:
    """Return encapsulated pixels without a delimiter, and their number of fragments.

    ``start`` is the offset of the element. None if they end inside a fragment, or are absent.
    """
    group, number, _, _ = _element(data, start) if start + 12 <= len(data) else (0, 0, b"", 0)
    if group << 16 | number != PIXEL_DATA or _long_length(data, start + 8)[0] != UNDEFINED:
        return None
    begin = place = start + 12
    count = -1  # the first item is the offset table
    while place + 8 <= len(data):
        tag, length = _item(data, place)
        if tag != ITEM or place + 8 + length > len(data):
            break
        place += 8 + length
        count += 1
    is_whole = DELIMITER_BYTES.startswith(data[place:])
    return (data[begin:place], count) if is_whole and count > 0 else None


def _convert(raw: RawDataElement) -> DataElement | RawDataElement:
    """Return an element with its value converted; equal elements are one object."""
    value = raw.value or b""
    key = raw.tag, raw.VR or "", value
    known = _known.get(key)
    if known is not None:
        return known
    if len(value) > LONGEST_KNOWN:
        return raw
    try:
        converted = convert_raw_data_element(raw)
    except Exception:
        return raw  # a damaged value raises where it is used, if ever
    if len(_known) >= MOST_KNOWN:
        _known.clear()
    _known[key] = converted
    return converted


def _encoding(elements: dict[BaseTag, Any]) -> Any:
    raw = elements.get(tag_of(CHARACTER_SET))
    return (
        default_encoding if raw is None else convert_encodings(convert_raw_data_element(raw).value)
    )


@cache
def _file_meta(uid: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid
    return meta
