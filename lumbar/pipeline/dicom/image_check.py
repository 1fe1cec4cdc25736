"""Is a data set an image that can be cached? Its class, size and bits are checked."""

from __future__ import annotations

import pydicom
from pydicom.uid import UID

from lumbar.pipeline.dicom.elements import has, tag_of, text, texts, value_of
from lumbar.pipeline.reject import Reason, RejectedError

_NEVER_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66": "Raw Data Storage",
    "1.2.840.10008.5.1.4.1.1.4.2": "MR Spectroscopy Storage",
    "1.3.12.2.1107.5.9.1": "Siemens CSA Non-Image Storage",
}
"""Storage classes without a picture, although they have rows, columns or even pixel data."""

_OTHER_CONTENTS = ("SpectroscopyData", "WaveformSequence", "EncapsulatedDocument")
_IMAGE_WORDS = ("Image", "RT Dose", "Segmentation", "Parametric Map")
"""Words in the names of the storage classes that have pixels."""

_SIEMENS_CREATOR = tag_of(0x00190010)
_SIEMENS_TILES = tag_of(0x0019100A)


def check_image(dataset: pydicom.Dataset, max_pixels: int) -> None:
    """Refuse all but grey-scale images of at most ``max_pixels`` rows x columns x frames.

    Raises
    ------
    RejectedError
        With the reason.
    """
    if has(dataset, "FloatPixelData") or has(dataset, "DoubleFloatPixelData"):
        raise RejectedError(Reason.UNSUPPORTED_PIXELS, "floating point pixels")
    if has(dataset, "SegmentSequence"):
        raise RejectedError(Reason.UNSUPPORTED_PIXELS, "a segmentation")
    _check_kind(dataset)
    _check_size(dataset, max_pixels)
    photometric = text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if value_of(dataset, "SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise RejectedError(Reason.COLOUR, photometric)
    _check_bits(dataset)
    if not value_of(dataset, "PerFrameFunctionalGroupsSequence"):
        _check_mosaic(dataset)


def _check_kind(dataset: pydicom.Dataset) -> None:
    """Refuse objects without pictures, by their class or because rows or pixels are missing."""
    sop_class = str(value_of(dataset, "SOPClassUID") or "")
    if sop_class in _NEVER_IMAGES:
        raise RejectedError(Reason.NOT_AN_IMAGE, _NEVER_IMAGES[sop_class])
    if value_of(dataset, "PixelData"):
        return
    name = UID(sop_class).name if sop_class else "no SOPClassUID"
    if not value_of(dataset, "Rows"):
        raise RejectedError(Reason.NOT_AN_IMAGE, f"no rows and no pixel data ({name})")
    is_other = name != sop_class and not any(word in name for word in _IMAGE_WORDS)
    if (sop_class and is_other) or any(has(dataset, keyword) for keyword in _OTHER_CONTENTS):
        raise RejectedError(Reason.NOT_AN_IMAGE, f"no pixel data ({name})")
    raise RejectedError(Reason.TRUNCATED, f"{dataset.Rows} rows and no pixel ({name})")


def _check_mosaic(dataset: pydicom.Dataset) -> None:
    """Refuse Siemens mosaics by ImageType or, if an archive rewrote it, by the number of tiles."""
    kinds = texts(dataset, "ImageType")
    if "MOSAIC" in kinds:
        raise RejectedError(Reason.MOSAIC, f"ImageType {'/'.join(kinds)}")
    tiles = _count_tiles(dataset)
    if tiles > 1:
        raise RejectedError(Reason.MOSAIC, f"NumberOfImagesInMosaic {tiles}")


def _count_tiles(dataset: pydicom.Dataset) -> int:
    """Return Siemens' NumberOfImagesInMosaic, 0 if it is absent."""
    creator, tiles = dataset.get(_SIEMENS_CREATOR), dataset.get(_SIEMENS_TILES)
    if creator is None or tiles is None or creator.value != "SIEMENS MR HEADER":
        return 0
    if isinstance(tiles.value, bytes):  # VR UN, from an archive without private elements
        return int.from_bytes(tiles.value[:2], "little")
    return int(tiles.value or 0)


def _check_bits(dataset: pydicom.Dataset) -> None:
    allocated = value_of(dataset, "BitsAllocated")
    stored = value_of(dataset, "BitsStored", allocated)
    high = value_of(dataset, "HighBit", None if stored is None else stored - 1)
    if allocated not in {8, 16} or not 0 < stored == high + 1 <= allocated:
        raise RejectedError(
            Reason.UNSUPPORTED_PIXELS,
            f"bits allocated {allocated}, stored {stored}, highest {high}",
        )


def _check_size(dataset: pydicom.Dataset, max_pixels: int) -> None:
    rows, columns = value_of(dataset, "Rows"), value_of(dataset, "Columns")
    sides = (rows, columns, value_of(dataset, "NumberOfFrames") or 1)
    try:
        rows, columns, frames = (int(side) for side in sides)
    except (TypeError, ValueError) as error:
        raise RejectedError(Reason.UNREADABLE, f"rows, columns, frames {sides}") from error
    if min(rows, columns, frames) < 1:
        raise RejectedError(Reason.UNREADABLE, f"rows, columns, frames {sides}")
    if rows * columns * frames > max_pixels:
        raise RejectedError(
            Reason.TOO_LARGE, f"{rows} x {columns} x {frames} pixels, more than {max_pixels}"
        )
