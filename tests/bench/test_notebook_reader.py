"""The baseline decodes what such loops decode: sorted, rescaled, stretched, resized."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from lumbar.bench.loaders.notebook_reader import NotebookReader
from lumbar.cache.errors import InputError
from lumbar.pipeline.source.layout import Layout

ROWS, COLUMNS = 24, 12
SAGITTAL = [0, 1, 0, 0, 0, -1]
AXIAL = [1, 0, 0, 0, 1, 0]


def write_image(path, number, position, orientation, *, value, inverted=False):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "7", "7.1"
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position, orientation
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -10
    pixels = np.full((ROWS, COLUMNS), value, np.uint16)
    pixels[: ROWS // 2] //= 2
    dataset.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def rsna_tree(tmp_path):
    """Study 7 with a sagittal series 1 and an axial series 2, both numbered against their order."""
    images = tmp_path / "train_images" / "7"
    for number, x, value in [(1, 8, 3000), (2, 0, 2000), (3, -8, 1000)]:
        write_image(images / "1" / f"{number}.dcm", number, [x, 0, 0], SAGITTAL, value=value)
    for number, z, value in [(1, -9, 3000), (2, 9, 1000)]:
        write_image(images / "2" / f"{number}.dcm", number, [0, 0, z], AXIAL, value=value)
    return tmp_path


def lower_half(volume_dhw):
    return volume_dhw[:, -1, volume_dhw.shape[2] // 2]


def test_series_is_sorted_and_stretched(rsna_tree):
    reader = pickle.loads(pickle.dumps(NotebookReader.find(rsna_tree, [("7", "1"), ("7", "2")])))
    sagittal = reader("7", "1", (48, 48))
    assert (sagittal.shape, sagittal.dtype) == ((3, 48, 48), np.float32)
    assert (sagittal.min(), sagittal.max()) == (0, 1)
    # Right to left and superior to inferior, whatever the instance numbers say.
    assert np.allclose(lower_half(sagittal) * 3, [1, 2, 3], atol=0.02)
    assert np.allclose(lower_half(reader("7", "2", (48, 48))) * 3, [1, 3], atol=0.02)


def test_picture_is_scaled_to_fit_and_padded_evenly(rsna_tree):
    volume = NotebookReader.find(rsna_tree, [("7", "1")])("7", "1", (48, 40))
    assert (volume[:, :, :8] == volume[0, 0, 0]).all()
    assert (volume[:, :, -8:] == volume[0, 0, 0]).all()
    assert (volume[:, :, 8:32] > volume[0, 0, 0]).all()


def test_inverted_pictures_are_turned_round(tmp_path):
    for number, x in [(1, 0), (2, 4)]:
        path = tmp_path / "train_images" / "7" / "1" / f"{number}.dcm"
        write_image(path, number, [x, 0, 0], SAGITTAL, value=1000, inverted=True)
    volume = NotebookReader.find(tmp_path, [("7", "1")])("7", "1", (ROWS, COLUMNS))
    assert (volume[:, 0] == 1).all()
    assert (volume[:, -1] == 0).all()


def test_bare_tree_is_grouped_by_uid(rsna_tree):
    bare = rsna_tree / "bare"
    (rsna_tree / "train_images" / "7" / "1").rename(bare)
    assert NotebookReader.find(bare, [("7", "7.1")])("7", "7.1", (8, 8)).shape == (3, 8, 8)


def test_cache_in_a_relative_source_is_skipped(rsna_tree, monkeypatch):
    images = rsna_tree / "train_images"
    (images / "cache").mkdir()
    copy = next((images).rglob("*.dcm"))
    (images / "cache" / "copy.dcm").write_bytes(copy.read_bytes())
    monkeypatch.chdir(images.parent)
    monkeypatch.setattr("lumbar.bench.loaders.notebook_reader.find_layout", bare)
    files = NotebookReader.find(Path("train_images"), [("7", "7.1")]).files["7", "7.1"]
    assert [path for path in files if "cache" in path.parts] == []
    assert files


def bare(src, _):
    return Layout(src, None, src)


def test_damaged_file_is_left_out(rsna_tree):
    series = rsna_tree / "train_images" / "7" / "1"
    (series / "2.dcm").write_bytes(b"no DICOM")
    reader = NotebookReader.find(rsna_tree, [("7", "1")])
    assert reader("7", "1", (8, 8)).shape == (2, 8, 8)
    for path in series.iterdir():
        path.write_bytes(b"no DICOM")
    with pytest.raises(InputError, match="no image of the series can be read"):
        reader("7", "1", (8, 8))


def test_series_that_the_source_lacks_is_named(rsna_tree):
    with pytest.raises(InputError, match="1 of 2 absent, the first: 7/9"):
        NotebookReader.find(rsna_tree, [("7", "1"), ("7", "9")])
