import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydantic import ValidationError

from lumbar.cache.errors import InputError
from lumbar.cache.names import CELLS, SERIES_DESCRIPTIONS, SEVERITY_TEXTS, SeriesType
from lumbar.synth.dataset import SynthConfig, write_dataset
from lumbar.synth.dicom import sample_encoding

CONDITION_TEXTS = {
    "Spinal Canal Stenosis": "Sagittal T2/STIR",
    "Left Neural Foraminal Narrowing": "Sagittal T1",
    "Right Neural Foraminal Narrowing": "Sagittal T1",
    "Left Subarticular Stenosis": "Axial T2",
    "Right Subarticular Stenosis": "Axial T2",
}
ALLOWED = {
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription",
    "ContentDate", "ContentTime", "InstanceNumber", "PatientPosition", "ImagePositionPatient",
    "ImageOrientationPatient", "FrameOfReferenceUID", "SliceLocation", "SliceThickness",
    "SpacingBetweenSlices", "PixelSpacing", "SamplesPerPixel", "PhotometricInterpretation", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter",
    "WindowWidth", "PixelData", "RescaleSlope", "RescaleIntercept",
}  # fmt: skip


def rows_of(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return list(reader.fieldnames or []), rows


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("name", "n"), [("train.csv", 3), ("test_solution.csv", 1)])
def test_label_tables(small_dataset: Path, name: str, n: int) -> None:
    columns, rows = rows_of(small_dataset / name)
    assert columns == ["study_id", *CELLS]
    assert len(rows) == n
    ids = [int(row["study_id"]) for row in rows]
    assert ids == sorted(set(ids))
    assert {row[cell] for row in rows for cell in CELLS} <= {*SEVERITY_TEXTS, ""}


@pytest.mark.parametrize("part", ["train", "test"])
def test_series_tables_name_the_folders(small_dataset: Path, part: str) -> None:
    columns, rows = rows_of(small_dataset / f"{part}_series_descriptions.csv")
    assert columns == ["study_id", "series_id", "series_description"]
    assert {row["series_description"] for row in rows} == set(SERIES_DESCRIPTIONS)
    images = small_dataset / f"{part}_images"
    folders = {str(path.relative_to(images)) for path in images.glob("*/*")}
    assert {f"{row['study_id']}/{row['series_id']}" for row in rows} == folders
    assert len(rows) == len(folders)


def test_coordinates_table(small_dataset: Path) -> None:
    columns, rows = rows_of(small_dataset / "train_label_coordinates.csv")
    assert columns == ["study_id", "series_id", "instance_number", "condition", "level", "x", "y"]
    _, series = rows_of(small_dataset / "train_series_descriptions.csv")
    description = {row["series_id"]: row["series_description"] for row in series}
    assert {row["condition"] for row in rows} == set(CONDITION_TEXTS)
    assert {row["level"] for row in rows} == {"L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"}
    for row in rows:
        assert description[row["series_id"]] == CONDITION_TEXTS[row["condition"]]
    per_study = Counter(row["study_id"] for row in rows)
    assert min(per_study.values()) > 15


def test_points_exist_for_grades_only(small_dataset: Path) -> None:
    _, labels = rows_of(small_dataset / "train.csv")
    graded = {(row["study_id"], cell) for row in labels for cell in CELLS if row[cell]}
    _, points = rows_of(small_dataset / "train_label_coordinates.csv")
    for row in points:
        condition = row["condition"].lower().replace(" ", "_")
        level = row["level"].lower().replace("/", "_")
        assert (row["study_id"], f"{condition}_{level}") in graded


def test_sample_submission_is_alphabetical(small_dataset: Path) -> None:
    columns, rows = rows_of(small_dataset / "sample_submission.csv")
    assert columns == ["row_id", "normal_mild", "moderate", "severe"]
    _, studies = rows_of(small_dataset / "test_solution.csv")
    ids = [row["row_id"] for row in rows]
    assert ids == sorted(f"{row['study_id']}_{cell}" for row in studies for cell in CELLS)


def test_files_read_without_a_warning(small_dataset: Path) -> None:
    for path in sorted(small_dataset.glob("*_images/*/*/*.dcm")):
        ds = pydicom.dcmread(path)
        keywords = {element.keyword for element in ds}
        assert keywords <= ALLOWED
        assert len(keywords - {"RescaleSlope", "RescaleIntercept"}) <= 27
        assert int(path.stem) == ds.InstanceNumber
        study, series = path.parts[-3], path.parts[-2]
        assert ds.StudyInstanceUID == ds.PatientID == study
        assert ds.SeriesInstanceUID == f"{study}.{series}"
        assert ds.SOPInstanceUID == f"{study}.1.{ds.InstanceNumber}"
        pixels = ds.pixel_array
        assert pixels.shape == (ds.Rows, ds.Columns)
        assert pixels.min() >= 0
        assert 200 < pixels.max() < 4096


def test_points_lie_on_the_anatomy(small_dataset: Path) -> None:
    """Left has the larger x, and the spinal point lies between the axial points of its disc."""
    _, rows = rows_of(small_dataset / "train_label_coordinates.csv")
    points: dict[tuple[str, str, str], np.ndarray] = {}
    for row in rows:
        folder = small_dataset / "train_images" / row["study_id"] / row["series_id"]
        ds = pydicom.dcmread(folder / f"{row['instance_number']}.dcm", stop_before_pixels=True)
        orientation = np.array(ds.ImageOrientationPatient, float)
        row_spacing, column_spacing = ds.PixelSpacing
        key = (row["study_id"], row["level"], row["condition"])
        points[key] = (
            np.array(ds.ImagePositionPatient, float)
            + float(row["x"]) * column_spacing * orientation[:3]
            + float(row["y"]) * row_spacing * orientation[3:]
        )
    compared = 0
    for (study, level, condition), middle in points.items():
        for kind in ("Neural Foraminal Narrowing", "Subarticular Stenosis"):
            left = points.get((study, level, f"Left {kind}"))
            right = points.get((study, level, f"Right {kind}"))
            if condition != "Spinal Canal Stenosis" or left is None or right is None:
                continue
            assert left[0] > right[0] + 10
            assert np.linalg.norm((left + right) / 2 - middle) < 10
            compared += 1
    assert compared > 20


def test_same_seed_same_bytes_whatever_the_workers(
    small_dataset: Path, small_config: SynthConfig, tmp_path: Path
) -> None:
    events = list(write_dataset(tmp_path / "data", small_config, workers=2))
    assert digest(tmp_path / "data") == digest(small_dataset)
    assert len(events) == 4
    files = list((tmp_path / "data").rglob("*.dcm"))
    assert sum(event.n_files for event in events) == len(files)
    assert sum(event.nbytes for event in events) == sum(file.stat().st_size for file in files)


def test_a_study_depends_on_seed_and_index_only(
    small_dataset: Path, small_config: SynthConfig, tmp_path: Path
) -> None:
    fewer = small_config.model_copy(update={"studies": 1, "test_studies": 0})
    (event,) = write_dataset(tmp_path / "one", fewer, workers=0)
    study = Path("train_images", str(event.study_id))
    assert digest(tmp_path / "one" / study) == digest(small_dataset / study)
    other = fewer.model_copy(update={"seed": 12, "max_matrix": 64})
    list(write_dataset(tmp_path / "other", other, workers=0))
    assert digest(tmp_path / "other" / study).keys() != digest(small_dataset / study).keys()


def test_only_the_wanted_series_types(tmp_path: Path) -> None:
    config = SynthConfig(studies=2, series_types=(SeriesType.SAGITTAL_T2,), max_matrix=64)
    list(write_dataset(tmp_path / "data", config, workers=0))
    _, series = rows_of(tmp_path / "data" / "train_series_descriptions.csv")
    assert {row["series_description"] for row in series} == {"Sagittal T2/STIR"}
    assert len(series) == 2
    assert not (tmp_path / "data" / "test_images").exists()


def test_transfer_syntaxes_are_mixed() -> None:
    encodings = [sample_encoding(np.random.default_rng(i)) for i in range(400)]
    counts = Counter(encoding.transfer_syntax.name for encoding in encodings)
    assert [name for name, _ in counts.most_common()] == [
        "RLE Lossless",
        "Explicit VR Little Endian",
        "JPEG 2000 Image Compression (Lossless Only)",
    ]
    rescaled = np.mean([encoding.rescale is not None for encoding in encodings])
    assert rescaled == pytest.approx(0.18, abs=0.08)
    assert {encoding.photometric for encoding in encodings} == {"MONOCHROME1", "MONOCHROME2"}


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not empty.*expected a new or empty folder"):
        write_dataset(tmp_path, SynthConfig(studies=1), workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    config = SynthConfig(series_types=(SeriesType.OTHER,))
    with pytest.raises(InputError, match="other"):
        write_dataset(tmp_path / "data", config, workers=0)
    with pytest.raises(InputError, match="workers"):
        write_dataset(tmp_path / "data", SynthConfig(), workers=-1)
    with pytest.raises(ValidationError):
        SynthConfig(studies=1, colour="red")
    assert not (tmp_path / "data").exists()
