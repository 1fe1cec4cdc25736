from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from lumbar.synth.dicom import MAX_STORED, sample_encoding, series_header, to_stored, write_instance
from lumbar.synth.study import SampledStudy


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1.3, (48, 66)).astype(np.float32)


@pytest.mark.parametrize("syntax", [RLELossless, ExplicitVRLittleEndian, JPEG2000Lossless])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_pixels_survive_every_transfer_syntax(
    sample: Callable[..., SampledStudy], image: np.ndarray, tmp_path: Path, syntax: UID, dtype: str
) -> None:
    sampled = sample_encoding(np.random.default_rng(1))
    encoding = replace(
        sampled,
        transfer_syntax=syntax,
        signed=dtype == "int16",
        photometric="MONOCHROME2",
        brightest=1500,
    )
    series = replace(sample(0, {}).series[0], rows=48, columns=66)
    stored = to_stored(image, encoding)
    header = series_header(100_000_001, 7, series, encoding)
    nbytes = write_instance(
        tmp_path, header, stored, stack=series.stacks[0], index=2, instance=3,
        transfer_syntax=syntax,
    )  # fmt: skip
    path = tmp_path / "3.dcm"
    assert path.stat().st_size == nbytes
    ds = pydicom.dcmread(path)
    assert ds.file_meta.TransferSyntaxUID == syntax
    assert ds.pixel_array.dtype == dtype
    np.testing.assert_array_equal(ds.pixel_array, stored)
    np.testing.assert_allclose(ds.ImagePositionPatient, series.stacks[0].position(2), atol=1e-3)


def test_monochrome1_is_the_negative(image: np.ndarray) -> None:
    encoding = replace(
        sample_encoding(np.random.default_rng(1)),
        signed=False, photometric="MONOCHROME2", brightest=1000,
    )  # fmt: skip
    positive = to_stored(image, encoding)
    negative = to_stored(image, replace(encoding, photometric="MONOCHROME1"))
    np.testing.assert_array_equal(positive + negative, MAX_STORED)


def test_brightness_is_clipped_to_the_stored_bits(image: np.ndarray) -> None:
    encoding = replace(
        sample_encoding(np.random.default_rng(1)),
        signed=False, photometric="MONOCHROME2", brightest=4000,
    )  # fmt: skip
    assert to_stored(image, encoding).max() == MAX_STORED
    signed = replace(encoding, signed=True)
    assert to_stored(image, signed).max() == MAX_STORED // 2
