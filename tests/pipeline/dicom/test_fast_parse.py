"""The quick parser against pydicom's: the same elements, or None."""

import os
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

from lumbar.pipeline.dicom.fast_parse import parse_quickly
from lumbar.pipeline.dicom.parse import quiet_pydicom


def file_bytes(syntax=ExplicitVRLittleEndian, *, pixels=b"\1\2\3\4", **elements):
    dataset = Dataset()
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = 1, 2
    dataset.BitsAllocated, dataset.PixelRepresentation = 16, 0
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def assert_same(found, expected):
    assert list(found.keys()) == list(expected.keys())
    assert found.file_meta.TransferSyntaxUID == expected.file_meta.TransferSyntaxUID
    assert found.original_encoding == expected.original_encoding
    for tag in expected.keys():  # noqa: SIM118  # the values of a data set are its elements
        try:
            value = expected[tag].value
        except Exception as error:  # whatever pydicom raises
            with pytest.raises(type(error)):
                _ = found[tag]
            continue
        assert found[tag].VR == expected[tag].VR
        same = found[tag].value == value  # apart from NaN, and no bytes are printed
        assert same or repr(found[tag].value) == repr(value), tag


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_common_files_are_parsed_like_pydicom(syntax):
    pixels = encapsulate([b"\1\2", b"\3\4"]) if syntax.is_encapsulated else b"\1\2\3\4"
    data = file_bytes(
        syntax,
        pixels=pixels,
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Grün",
        ReferencedImageSequence=Sequence([Dataset()]),
        WindowCenter=None,
    )
    found = parse_quickly(data)
    assert found is not None
    assert_same(found, pydicom.dcmread(BytesIO(data)))
    assert found.PatientName == "Grün"


def test_values_of_earlier_files_are_taken_only_where_they_are_the_same():
    for spacing in ([0.5, 0.25], [0.5, 0.75], [0.5, 0.25]):
        found = parse_quickly(file_bytes(PixelSpacing=spacing))
        assert list(found.PixelSpacing) == spacing


@pytest.mark.parametrize(
    "data",
    [
        file_bytes(ImplicitVRLittleEndian),
        file_bytes(ExplicitVRBigEndian),
        file_bytes(DeflatedExplicitVRLittleEndian),
        file_bytes()[132:],
        file_bytes() + b"\0",
        file_bytes()[:-1],
        file_bytes(RLELossless, pixels=encapsulate([b"\1\2"]))[:-8],
        file_bytes(RLELossless, pixels=encapsulate([b"\1\2"]))[:-9],
        file_bytes().replace(b"US\2\0", b"??\2\0"),
        b"",
        b"no DICOM" * 100,
    ],
    ids=[
        "implicit",
        "big endian",
        "deflated",
        "no preamble",
        "a byte more",
        "a byte less",
        "no delimiter",
        "cut in an item",
        "unknown VR",
        "empty",
        "text",
    ],
)
def test_other_files_are_left_to_pydicom(data):
    assert parse_quickly(data) is None


def test_a_damaged_value_is_what_pydicom_makes_of_it():
    data = file_bytes(SliceThickness="4.25").replace(b"4.25", b"4,25")
    with quiet_pydicom():
        found = parse_quickly(data)
        assert_same(found, pydicom.dcmread(BytesIO(data)))
        assert (found.Rows, found.SliceThickness) == (1, "4,25")


def test_damaged_bytes_never_raise():
    rng = np.random.default_rng(8)
    whole = file_bytes(RLELossless, pixels=encapsulate([b"\1\2" * 8]), PatientName="a")
    n_parsed = 0
    for _ in range(1000):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        with quiet_pydicom():
            found = parse_quickly(data.tobytes())
            n_parsed += found is not None
            if found is not None:
                assert_same(found, pydicom.dcmread(BytesIO(data.tobytes())))
    assert 100 < n_parsed < 1000


def real_files():
    folders = [Path(pydicom.__file__).with_name("data"), Path(os.environ.get("LUMBAR_DICOM", "/-"))]
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_real_files_are_parsed_like_pydicom():
    n_parsed = 0
    with quiet_pydicom(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in real_files():
            data = path.read_bytes()
            found = parse_quickly(data)
            if found is not None:
                n_parsed += 1
                assert_same(found, pydicom.dcmread(BytesIO(data)))
    assert n_parsed > 40
