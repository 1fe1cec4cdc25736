"""One DICOM file per image, with the few header elements that the public files have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16, UInt16
from openjpeg.utils import encode_array as encode_jpeg2000
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from rle.utils import encode_pixel_data as encode_rle

from lumbar.cache.names import SeriesType
from lumbar.synth.geometry import Series, Stack

TRANSFER_SYNTAX_WEIGHTS = {RLELossless: 0.72, ExplicitVRLittleEndian: 0.2, JPEG2000Lossless: 0.08}
"""A guess: all public files that could be read one by one were RLE Lossless."""

RESCALE_RATE = 0.18
MONOCHROME1_RATE = 0.02
SIGNED_RATE = 0.04
NO_SPACING_TAGS_RATE = 0.08

BITS_STORED = 12
MAX_STORED = 2**BITS_STORED - 1
MAX_SIGNED = 2 ** (BITS_STORED - 1) - 1

ENHANCED_MR = UID("1.2.840.10008.5.1.4.1.1.4.1")
"""The class that the public files name, although they are single-frame."""

SERIES_DESCRIPTIONS = {
    SeriesType.SAGITTAL_T1: "T1",
    SeriesType.SAGITTAL_T2: "T2",
    SeriesType.AXIAL_T2: "T2",
}

Stored = UInt16[np.ndarray, "rows columns"] | Int16[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Encoding:
    """How a series stores its pixels."""

    transfer_syntax: UID
    photometric: str
    signed: bool
    brightest: int
    """Stored value of the intensity 1."""
    rescale: tuple[float, float] | None
    """Slope and intercept, None without."""
    spacing_tags: bool
    """Whether the files have SliceThickness and SpacingBetweenSlices."""
    content_date: str
    content_time: str


def sample_encoding(rng: np.random.Generator) -> Encoding:
    """Sample transfer syntax, pixel format and dates of one series."""
    syntaxes = list(TRANSFER_SYNTAX_WEIGHTS)
    syntax = syntaxes[int(rng.choice(len(syntaxes), p=list(TRANSFER_SYNTAX_WEIGHTS.values())))]
    signed = rng.random() < SIGNED_RATE and syntax != JPEG2000Lossless
    inverted = rng.random() < MONOCHROME1_RATE and not signed
    brightest = int(np.exp(rng.uniform(np.log(250), np.log(1500 if signed else 2900))))
    slope, intercept = round(rng.uniform(0.5, 4.0), 3), float(rng.integers(0, 20))
    rescaled = rng.random() < RESCALE_RATE
    return Encoding(
        transfer_syntax=syntax,
        photometric="MONOCHROME1" if inverted else "MONOCHROME2",
        signed=bool(signed),
        brightest=brightest,
        rescale=(slope, intercept) if rescaled else None,
        spacing_tags=bool(rng.random() >= NO_SPACING_TAGS_RATE),
        content_date=f"{rng.integers(2009, 2023)}{rng.integers(1, 13):02}{rng.integers(1, 29):02}",
        content_time=f"{rng.integers(7, 20):02}{rng.integers(60):02}{rng.integers(60):02}",
    )


def to_stored(image: Float32[np.ndarray, "rows columns"], encoding: Encoding) -> Stored:
    """Return the stored values of an image whose brightest tissue is about 1."""
    top = MAX_SIGNED if encoding.signed else MAX_STORED
    values = np.minimum(image * np.float32(encoding.brightest) + np.float32(0.5), np.float32(top))
    stored: Stored = values.astype(np.int16 if encoding.signed else np.uint16)
    if encoding.photometric == "MONOCHROME1":
        return np.asarray(np.uint16(MAX_STORED) - stored, np.uint16)
    return stored


def series_header(study_id: int, series_id: int, series: Series, encoding: Encoding) -> Dataset:
    """Return the elements that all files of a series share."""
    header = Dataset()
    header.PatientID = str(study_id)
    header.StudyInstanceUID = str(study_id)
    header.SeriesInstanceUID = f"{study_id}.{series_id}"
    header.FrameOfReferenceUID = f"{study_id}.{series_id}.1"
    header.SeriesDescription = SERIES_DESCRIPTIONS[series.series_type]
    header.ContentDate = encoding.content_date
    header.ContentTime = encoding.content_time
    header.PatientPosition = "HFS"
    if encoding.spacing_tags:
        header.SliceThickness = series.thickness
        header.SpacingBetweenSlices = series.slice_step
    header.PixelSpacing = [series.row_spacing, series.column_spacing]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = encoding.photometric
    header.Rows = series.rows
    header.Columns = series.columns
    header.BitsAllocated = 16
    header.BitsStored = BITS_STORED
    header.HighBit = BITS_STORED - 1
    header.PixelRepresentation = int(encoding.signed)
    slope, intercept = encoding.rescale or (1.0, 0.0)
    low, high = 0.0, encoding.brightest * 1.05
    if encoding.photometric == "MONOCHROME1":
        low, high = MAX_STORED - high, float(MAX_STORED)
    header.WindowCenter = round((low + high) / 2 * slope + intercept, 1)
    header.WindowWidth = round((high - low) * slope, 1)
    if encoding.rescale:
        header.RescaleIntercept = intercept
        header.RescaleSlope = slope
    return header


def write_instance(
    folder: Path, header: Dataset, stored: Stored, *, stack: Stack, index: int, instance: int,
    transfer_syntax: UID,
) -> int:  # fmt: skip
    """Write one image of a series to ``<instance>.dcm``; return the size of the file in bytes."""
    position = stack.position(index)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ENHANCED_MR
    meta.MediaStorageSOPInstanceUID = UID(f"{header.StudyInstanceUID}.1.{instance}")
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationVersionName = "LUMBAR_SYNTH"
    file = Dataset(header)
    file.file_meta = meta
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    file.InstanceNumber = instance
    file.ImagePositionPatient = [round(float(value), 4) for value in position]
    file.ImageOrientationPatient = [
        round(float(value), 6) for value in (*stack.along_columns, *stack.along_rows)
    ]
    normal = np.cross(stack.along_columns, stack.along_rows)
    file.SliceLocation = round(float(position @ normal), 4)
    file.PixelData = _encode(stored, transfer_syntax)
    file["PixelData"].VR = "OW"
    path = folder / f"{instance}.dcm"
    dcmwrite(path, file, enforce_file_format=True)
    return path.stat().st_size


def _encode(stored: Stored, transfer_syntax: UID) -> bytes:
    if transfer_syntax == ExplicitVRLittleEndian:
        return stored.tobytes()
    if transfer_syntax == JPEG2000Lossless:
        frame = encode_jpeg2000(stored, bits_stored=BITS_STORED, photometric_interpretation=2)
    else:
        rows, columns = stored.shape
        frame = encode_rle(
            stored.tobytes(), byteorder="<", rows=rows, columns=columns,
            samples_per_pixel=1, bits_allocated=16,
        )  # fmt: skip
    return bytes(encapsulate([frame]))
