"""The CSV files: what is read, and what is said of a wrong cell."""

import polars as pl
import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.names import CONDITIONS, LEVELS
from lumbar.pipeline.source.rsna_csv import (
    CONDITION_TEXTS,
    LEVEL_TEXTS,
    read_points,
    read_series_descriptions,
)

SERIES = "study_id,series_id,series_description\n"
POINTS = "study_id,series_id,instance_number,condition,level,x,y\n"
GOOD_POINT = "1,2,3,Spinal Canal Stenosis,L1/L2,4.5,6\n"


def test_ids_stay_strings(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"{SERIES}007,0012,Sagittal T1\n007,13,Axial T2\n")
    assert read_series_descriptions(path) == {
        ("007", "0012"): "sagittal_t1",
        ("007", "13"): "axial_t2",
    }


def test_points_take_our_names(tmp_path):
    path = tmp_path / "a.csv"
    names = [f"{condition},{level}" for condition in CONDITION_TEXTS for level in LEVEL_TEXTS]
    path.write_text(POINTS + "".join(f"1,2,3,{name},4.5,6\n" for name in names))
    points = read_points(path)
    assert points["condition"].unique(maintain_order=True).to_list() == list(CONDITIONS)
    assert points["level"].unique(maintain_order=True).to_list() == list(LEVELS)
    assert points.schema["instance_number"] == pl.Int32
    assert points.select("x", "y").row(0) == (4.5, 6.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study_id,series,series_description\n", r"columns of a CSV.*missing \['series_id'\]"),
        (
            f"{SERIES}1,2,Sagittal T3\n",
            r"unknown series_description.*line 2.*'Sagittal T3'.*Axial T2",
        ),
        (f"{SERIES}1,2,Axial T2\n1,3,\n", r"unknown series_description.*line 3"),
        (f"{SERIES}1,2,Axial T2\n1,2,Axial T2\n", r"comes twice.*line 3.*study 1, series 2"),
        (f"{SERIES}1,2,Axial T2\n,3,Axial T2\n", r"study_id.*line 3.*an id"),
    ],
)
def test_wrong_descriptions(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_series_descriptions(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2,3,Stenosis,L1/L2,4,5", r"unknown condition.*line 3.*'Stenosis'.*Spinal Canal"),
        ("1,2,3,Spinal Canal Stenosis,L6/S1,4,5", r"unknown level.*line 3.*'L6/S1'.*L5/S1"),
        ("1,2,3.5,Spinal Canal Stenosis,L1/L2,4,5", r"instance_number.*line 3.*'3.5'.*whole"),
        ("1,2,3,Spinal Canal Stenosis,L1/L2,left,5", r"x is not a number.*line 3.*'left'"),
        ("1,2,3,Spinal Canal Stenosis,L1/L2,4,nan", r"y is not a number.*line 3.*'nan'"),
        ("1,2,3,Spinal Canal Stenosis,L1/L2,4,", r"y is not a number.*line 3"),
    ],
)
def test_wrong_points(tmp_path, row, message):
    path = tmp_path / "a.csv"
    path.write_text(POINTS + GOOD_POINT + row + "\n")
    with pytest.raises(InputError, match=message):
        read_points(path)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-16", "got UTF-16 text; expected UTF-8"), ("utf-16-le", "got UTF-16 text")],
)
def test_another_encoding_is_named_without_its_bytes(tmp_path, encoding, message):
    path = tmp_path / "a.csv"
    path.write_bytes(f"{SERIES}1,2,Axial T2\n".encode(encoding))
    with pytest.raises(InputError, match=message) as caught:
        read_series_descriptions(path)
    assert "\\x" not in str(caught.value)
    path.write_bytes(f"{SERIES}1,2,Axial T2 \xe4\n".encode("latin-1"))
    with pytest.raises(InputError, match="got bytes that are not UTF-8"):
        read_series_descriptions(path)
