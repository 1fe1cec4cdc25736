"""The files of a folder that differ in contrast or patient."""

import shutil
from dataclasses import replace

import pytest

T1 = {"SeriesDescription": "T1", "EchoTime": "10", "RepetitionTime": "500"}


T2 = {"SeriesDescription": "T2", "EchoTime": "100", "RepetitionTime": "4000"}


def test_a_mixed_series_of_the_data_set_is_flagged(tools, tmp_path, rsna):
    """Its folder and the CSV say what it is: nothing is parted there."""
    folder = rsna / "train_images" / "200" / "7"
    shutil.rmtree(folder)

    def edit(dataset, index):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "200", "200.7"
        dataset.SeriesDescription = "T1" if index < 4 else "T2"

    tools.phantom.write(folder, edit=edit)
    cache = tools.cached(rsna, tmp_path / "out")
    assert list(cache.series["flags"][2]) == ["mixed_contrasts"]
    assert cache.attributes(2).flag_details["mixed_contrasts"] == "4 of t1; 3 of t2"


def test_a_file_of_another_patient_is_left_out(tools, tmp_path, rsna):
    folder = rsna / "train_images" / "200" / "7"
    shutil.rmtree(folder)

    def edit(dataset, index):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "200", "200.7"
        dataset.PatientID = "Roe" if index == 3 else "Doe"

    tools.phantom.write(folder, edit=edit)
    cache = tools.cached(rsna, tmp_path / "out")
    rows = cache.rejected.select("path", "reason", "detail").rows()
    assert rows == [
        ("200/7/4.dcm", "other_series", "another patient than most files of the series")
    ]


def test_two_patients_of_equally_many_files_are_refused(tools, tmp_path, rsna):
    folder = rsna / "train_images" / "200" / "7"
    shutil.rmtree(folder)

    def edit(dataset, index):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "200", "200.7"
        dataset.PatientID = "Roe" if index % 2 else "Doe"

    replace(tools.phantom, depth=8).write(folder, edit=edit)
    cache = tools.cached(rsna, tmp_path / "out")
    rows = cache.rejected.select("path", "reason", "detail").rows()
    assert rows == [("", "other_series", "2 patients, none of them of most files")]


@pytest.mark.parametrize("named", [0, 3])
def test_most_files_describe_a_series_not_the_first_one(tools, tmp_path, named):
    def edit(dataset, index):
        if index != named:
            dataset.SeriesDescription = "T2"

    tools.phantom.write(tmp_path / "src", edit=edit)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.series["series_type"].to_list() == ["sagittal_t2"]


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (T1, T2, "sagittal_t1"),
        (T2, T1, "sagittal_t2"),
        ({"EchoTime": "20", "RepetitionTime": "900"}, {"EchoTime": "100"}, "sagittal_t1"),
    ],
)
def test_twins_of_two_contrasts_give_one_contrast(tools, tmp_path, rsna, one, other, kind):
    """Numbers that run against each other would give slices of both, by the less number."""
    shutil.rmtree(rsna / "train_images" / "100")
    shutil.rmtree(rsna / "train_images" / "200")
    for name in ("train.csv", "train_series_descriptions.csv", "train_label_coordinates.csv"):
        (rsna / name).unlink()
    folder = rsna / "train_images" / "300" / "7"
    phantom = replace(tools.phantom, rows=16, columns=16)
    uids = {"StudyInstanceUID": "300", "SeriesInstanceUID": "300.7"}
    replace(phantom, tags=uids | one).write(folder)
    numbers = tuple(range(17, 10, -1))
    replace(phantom, tags=uids | other, instance_numbers=numbers).write(
        folder, edit=lambda dataset, index: setattr(dataset, "InstanceNumber", 7 - index)
    )
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.series["series_type"].to_list() == [kind]
    assert sorted(cache.rejected["path"]) == [f"300/7/{n}.dcm" for n in range(11, 18)]
    assert cache.attributes(0).instance_numbers == tuple(range(1, 8))
