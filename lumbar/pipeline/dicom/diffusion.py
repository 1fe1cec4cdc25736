"""Does a picture show diffusion? Its type, contrast and b-value tell."""

from __future__ import annotations

import math
import struct

import pydicom

from lumbar.pipeline.dicom.elements import hint, tag_of, text, texts, value_of

_KINDS = frozenset({"DIFFUSION", "ADC", "EADC", "TRACEW", "FA", "TENSOR", "DWI"})
"""Values of ImageType."""

_PRIVATE = (
    (0x00190010, "SIEMENS MR HEADER", 0x0019100C),
    (0x20010010, "Philips Imaging DD 001", 0x20011003),
    (0x00650010, "Image Private Header", 0x00651009),
)
"""Private b-values of the makers: block, creator, element. Philips writes 0 into all pictures."""


def shows_diffusion(dataset: pydicom.Dataset) -> bool:
    """Tell if a file shows diffusion; a b-value of 0 does not count as such."""
    if _KINDS & set(texts(dataset, "ImageType")):
        return True
    if text(dataset, "AcquisitionContrast") == "DIFFUSION":
        return True
    b_value = hint(dataset, "DiffusionBValue")
    if b_value is None:
        b_value = next(filter(None, (_private(dataset, *place) for place in _PRIVATE)), 0.0)
    return b_value > 0 or _has_diffusing_frames(dataset)


def _has_diffusing_frames(dataset: pydicom.Dataset) -> bool:
    shared = value_of(dataset, "SharedFunctionalGroupsSequence") or []
    frames = value_of(dataset, "PerFrameFunctionalGroupsSequence") or []
    for group in (*shared, *frames):
        for item in value_of(group, "MRDiffusionSequence") or []:
            if (hint(item, "DiffusionBValue") or 0) > 0:
                return True
            if text(item, "DiffusionDirectionality") not in {"", "NONE"}:
                return True
    return False


def _private(dataset: pydicom.Dataset, block: int, creator: str, number: int) -> float:
    """Return a private b-value, 0 if it is absent or malformed."""
    tag = tag_of(number)
    if tag not in dataset or tag_of(block) not in dataset:
        return 0.0
    if str(dataset[tag_of(block)].value) != creator:
        return 0.0
    value = dataset[tag].value
    try:
        found = _unknown(value) if isinstance(value, bytes) else float(value)
    except (TypeError, ValueError, struct.error):
        return 0.0
    return found if math.isfinite(found) else 0.0


def _unknown(value: bytes) -> float:
    """Return a number of VR UN: text, or a float of eight or four bytes."""
    try:
        return float(value.decode("ascii").strip(" \0"))
    except ValueError:
        return float(struct.unpack("<d" if len(value) == 8 else "<f", value)[0])
