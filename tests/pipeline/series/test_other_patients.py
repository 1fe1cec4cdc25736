"""Series of several patients in the folder of one study."""

import shutil
from dataclasses import replace

import pytest


@pytest.mark.parametrize(
    ("one", "other", "flagged"),
    [
        ({"PatientID": "Doe"}, {"PatientID": "Roe"}, True),
        ({"PatientName": "Doe^J"}, {"PatientName": "Roe^R"}, True),
        (
            {"PatientID": "0", "PatientBirthDate": "19600101"},
            {"PatientID": "0", "PatientBirthDate": "19700101"},
            True,
        ),
        ({"PatientID": "Doe"}, {"PatientID": "Doe "}, False),
        ({"PatientID": "Doe"}, {}, False),
    ],
)
def test_series_of_two_patients_in_the_folder_of_a_study(
    tools, tmp_path, rsna, one, other, flagged
):
    for plane, series_id, tags in (("sagittal", "7", one), ("axial", "8", other)):
        folder = rsna / "train_images" / "100" / series_id
        shutil.rmtree(folder)
        uids = {"StudyInstanceUID": "100", "SeriesInstanceUID": f"100.{series_id}"}
        replace(tools.planes[plane], rows=16, columns=16, tags=uids | tags).write(folder)
    cache = tools.cached(rsna, tmp_path / "out")
    flags = [list(found) for found in cache.series["flags"]]
    assert flags == [["several_patients"] * flagged] * 2 + [[]]
    if flagged:
        details = cache.attributes(0).flag_details
        assert details == {"several_patients": "100/8/1.dcm"}
        assert not any(name in str(details) for name in ("Doe", "Roe"))
    events = tools.run(rsna, tmp_path / "out", check="contents")
    assert events[-1].n_reused == 3


def test_a_series_of_another_patient_that_comes_later_is_named_beside_the_first(
    tools, tmp_path, rsna
):
    def write(series_id, patient):
        tags = {"StudyInstanceUID": "300", "SeriesInstanceUID": f"300.{series_id}"}
        tags |= {"PatientID": patient}
        folder = rsna / "train_images" / "300" / series_id
        replace(tools.phantom, rows=16, columns=16, tags=tags).write(folder)

    (rsna / "train_series_descriptions.csv").unlink()
    write("1", "Doe")
    cache = tools.cached(rsna, tmp_path / "out")
    assert "several_patients" not in list(cache.series["flags"].explode())
    write("2", "Roe")
    cache = tools.cached(rsna, tmp_path / "out")
    assert [key for key, flags in cache.series.select("series_id", "flags").rows() if flags] == [
        "1",
        "2",
    ]
