"""What is unusual is named with where it is, how much of it there is, and whose word was taken."""

from dataclasses import replace

import pydicom
import pytest

from lumbar.cache.format import VolumeAttributes
from lumbar.pipeline.reject import Reason


def uids(study_id, series_id):
    return {"StudyInstanceUID": study_id, "SeriesInstanceUID": f"{study_id}.{series_id}"}


def details(tools, tmp_path, name="src"):
    attributes = tools.cached(tmp_path / name, tmp_path / f"out-{name}").attributes(0)
    assert set(attributes.flag_details) <= set(attributes.flags)
    return dict(attributes.flag_details)


def test_gap_says_where_and_how_many(tools, tmp_path):
    phantom = replace(tools.phantom, depth=14)
    phantom.write(tmp_path / "src")
    for number in (4, 8, 9, 10):
        (tmp_path / "src" / f"{number}.dcm").unlink()
    assert details(tools, tmp_path) == {
        "gap": "1 missing between d=2 and d=3; 3 missing between d=5 and d=6"
    }


def test_many_gaps_are_counted(tools, tmp_path):
    """Steps of one and two in turn after a regular start; no more than twenty are spelt out."""
    x_mm, at = [], -60.0
    for index in range(90):
        x_mm.append(at)
        at += 3.0 if index < 45 or index % 2 else 6.0

    def place(dataset, index):
        dataset.ImagePositionPatient = [x_mm[index], -40, 60]

    replace(tools.phantom, depth=90, rows=8, columns=8).write(tmp_path / "src", edit=place)
    text = details(tools, tmp_path)["gap"]
    assert text.startswith("1 missing between d=46 and d=47; ")
    assert text.endswith("; 2 more")
    assert text.count("missing") == 20


def test_uneven_step_says_where(tools, tmp_path):
    def uneven(dataset, index):
        dataset.ImagePositionPatient = [-12 + 4 * index + (1.3 if index > 4 else 0), -40, 60]

    tools.phantom.write(tmp_path / "src", edit=uneven)
    assert details(tools, tmp_path)["irregular_spacing"] == (
        "5.30 mm between d=4 and d=5, usually 4.00"
    )


def test_slice_off_the_line_says_where(tools, tmp_path):
    def bend(dataset, index):
        dataset.ImagePositionPatient = [-12 + 4 * index, -40 + (3 if index > 3 else 0), 60]

    tools.phantom.write(tmp_path / "src", edit=bend)
    assert details(tools, tmp_path)["irregular_spacing"] == "off the line between d=3 and d=4"


def test_repeated_mixed_and_few(tools, tmp_path):
    replace(tools.phantom, depth=2).write(tmp_path / "src")
    replace(tools.phantom, depth=2, instance_numbers=(8, 9)).write(tmp_path / "src")
    replace(
        tools.phantom, depth=1, rows=24, row_spacing=3.0, origin=(-4, -40, 60),
        instance_numbers=(5,),
    ).write(tmp_path / "src")  # fmt: skip
    assert details(tools, tmp_path) == {
        "repeated_positions": "5 images of 3 positions",
        "mixed_sizes": "2 of 48 x 40 at 1.5 x 2 mm; 1 of 24 x 40 at 3 x 2 mm",
        "few_slices": "3",
        "files_left_out": "2 repeated_position",
    }


def test_orientations_and_planes_are_counted(tools, tmp_path):
    axial = tools.planes["axial"]
    axial.write(tmp_path / "src")
    tilted = replace(
        axial, depth=2, origin=(-40, -35, -60), instance_numbers=(20, 21),
        column_direction=(0.0, 0.8660254, 0.5), step=(0.0, 1.75, -3.0310889),
    )  # fmt: skip
    tilted.write(tmp_path / "src")
    replace(tools.phantom, depth=3, instance_numbers=(31, 32, 33)).write(tmp_path / "src")
    found = details(tools, tmp_path)
    assert found["several_orientations"] == "2 orientations, normals up to 30.0 degrees apart"
    assert found["other_planes"] == "3 sagittal"


def test_shear_says_how_much(tools, tmp_path):
    def sheared(dataset, index):
        dataset.ImagePositionPatient = [-12 + 4 * index, -40 + index, 60]

    tools.phantom.write(tmp_path / "src", edit=sheared)
    assert details(tools, tmp_path) == {"sheared": "1.00 mm a step"}


def test_series_without_flags_has_no_details_in_its_metadata(tools, tmp_path):
    tools.phantom.write(tmp_path / "src")
    attributes = tools.cached(tmp_path / "src", tmp_path / "out").attributes(0)
    assert attributes.flags == ()
    assert "flag_details" not in attributes.to_json()


def test_metadata_from_before_there_were_details_is_read(tools, tmp_path):
    replace(tools.phantom, depth=2).write(tmp_path / "src")
    attributes = tools.cached(tmp_path / "src", tmp_path / "out").attributes(0)
    old = attributes.to_json()
    assert old.pop("flag_details") == {"few_slices": "2"}
    assert VolumeAttributes.from_json(old).flags == ("few_slices",)


@pytest.mark.parametrize(
    ("description", "flags"),
    [("T1", []), ("T2", ["type_disagrees"]), ("a localizer", []), ("", [])],
)
def test_weighting_that_csv_and_header_name_differently(tools, tmp_path, rsna, description, flags):
    phantom = tools.with_tags(SeriesDescription=description, **uids("200", "7"))
    phantom.write(rsna / "train_images" / "200" / "7")
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.series["series_type"].to_list()[2] == "sagittal_t1"
    assert cache.series["flags"].to_list()[2] == flags
    if flags:
        assert dict(cache.attributes(2).flag_details) == {
            "type_disagrees": "sagittal_t1 by the CSV, sagittal_t2 by the header"
        }


def test_folder_whose_headers_name_another_series_is_flagged(tools, tmp_path, rsna):
    tools.with_tags(**uids("999", "7")).write(rsna / "train_images" / "200" / "7")
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.series["study_id"].to_list() == ["100", "100", "200"]
    assert cache.series["flags"].to_list()[2] == ["id_disagrees"]
    assert cache.attributes(2).flag_details["id_disagrees"] == "study 999, series 999.7"


def test_file_of_another_patient_in_a_folder_is_left_out(tools, tmp_path, rsna):
    """It lies where the stack has room for it, and would be a slice of the wrong patient."""
    folder = rsna / "train_images" / "200" / "7"
    stray = folder / "3.dcm"
    dataset = pydicom.dcmread(stray)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "555", "555.7"
    dataset.save_as(stray)
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.rejected.select("path", "reason", "detail").rows() == [
        ("200/7/3.dcm", Reason.OTHER_SERIES, "study 555, series 555.7, the others study 200, "
         "series 200.7")
    ]  # fmt: skip
    assert cache.attributes(2).instance_numbers == (1, 2, 4, 5, 6, 7)
    assert "id_disagrees" not in cache.attributes(2).flags


def test_of_two_halves_the_one_that_the_folder_names_is_kept(tools, tmp_path, rsna):
    folder = rsna / "train_images" / "200" / "7"
    for number in (1, 2, 3):
        dataset = pydicom.dcmread(folder / f"{number}.dcm")
        dataset.StudyInstanceUID = "100"
        dataset.save_as(folder / f"{number}.dcm")
    (folder / "7.dcm").unlink()
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.attributes(2).instance_numbers == (4, 5, 6)


def test_files_that_name_nothing_are_nobodys_strangers(tools, tmp_path, rsna):
    folder = rsna / "train_images" / "200" / "7"
    for number in (1, 2, 3, 4):
        dataset = pydicom.dcmread(folder / f"{number}.dcm")
        del dataset.StudyInstanceUID, dataset.SeriesInstanceUID
        dataset.save_as(folder / f"{number}.dcm")
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.rejected.is_empty()
    assert cache.series["flags"].to_list()[2] == []
