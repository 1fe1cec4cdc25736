"""A UID of several series or patients: each is cached by itself, with stable ids."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from lumbar.pipeline.dicom.identity import shared_uid

UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}


T1 = {"SeriesDescription": "T1", "EchoTime": "10", "RepetitionTime": "500"}


T2 = {"SeriesDescription": "T2", "EchoTime": "100", "RepetitionTime": "4000"}


MR = ["ORIGINAL", "PRIMARY", "M"]


def write(tools, folder, first, **tags):
    phantom = replace(tools.phantom, rows=16, columns=16, tags=UIDS | tags, first_file=first)
    phantom.write(folder)


@pytest.mark.parametrize(
    ("one", "other", "types"),
    [
        (T1, T2, ["sagittal_t1", "sagittal_t2"]),
        ({"SeriesDescription": "t1 sag"}, {"SeriesDescription": "T2 sag"}, None),
        ({"EchoTime": "12"}, {"EchoTime": "96"}, None),
        ({"RepetitionTime": "500"}, {"RepetitionTime": "4200"}, None),
        ({"InversionTime": "150"}, {"InversionTime": "220"}, None),
        ({"ImageType": [*MR, "WATER"]}, {"ImageType": [*MR, "FAT"]}, None),
        ({"ImageType": MR}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, None),
        ({"PatientID": "A"}, {"PatientID": "B"}, None),
        ({"PatientName": "Doe^J"}, {"PatientName": "Roe^R"}, None),
        (
            {"PatientID": "0", "PatientBirthDate": "19600101"},
            {"PatientID": "0", "PatientBirthDate": "19700101"},
            None,
        ),
    ],
)
def test_what_differs_is_two_series(tools, tmp_path, one, other, types):
    write(tools, tmp_path / "src", 1, **one)
    write(tools, tmp_path / "src", 101, **other)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.series["depth"].to_list() == [7, 7]
    assert cache.rejected.is_empty()
    for number, flags in enumerate(cache.series["flags"]):
        assert list(flags) == ["shared_uid"]
        files = cache.attributes(number).n_files
        assert files == 7
    if types:
        assert sorted(cache.series["series_type"]) == types
    ids = cache.series.select("study_id", "series_id").rows()
    is_patient = any(keyword.startswith("Patient") for keyword in one)
    assert len({study_id for study_id, _ in ids}) == (2 if is_patient else 1)
    assert {(shared_uid(study_id), shared_uid(series_id)) for study_id, series_id in ids} == {
        ("1.2.3", "1.2.3.4")
    }
    shutil.move(tmp_path / "src", tmp_path / "renamed")
    for number, path in enumerate(sorted((tmp_path / "renamed").iterdir(), reverse=True)):
        path.rename(path.with_name(f"file{number}"))
    again = tools.cached(tmp_path / "renamed", tmp_path / "again")
    assert again.series.select("study_id", "series_id").rows() == ids
    for number in range(2):
        assert np.array_equal(again.volume(number), cache.volume(number))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"EchoTime": "98.0"}, {"EchoTime": "98.6"}),
        ({"RepetitionTime": "3100"}, {"RepetitionTime": "4300"}),
        ({"SeriesDescription": "T2 SAG"}, {"SeriesDescription": "t2  sag "}),
        ({"SeriesDescription": "T2"}, {}),
        ({"PatientID": "A"}, {}),
        ({"PatientName": "Doe^J"}, {"PatientName": "DOE^J^^"}),
        ({"ImageType": MR}, {"ImageType": [*MR, "NORM"]}),
    ],
)
def test_what_differs_by_the_writing_is_one_series(tools, tmp_path, one, other):
    """Odd and even slices; a kind of each would have a gap after every slice."""

    def edit(dataset, index):
        for keyword, value in (UIDS | (other if index % 2 else one)).items():
            setattr(dataset, keyword, value)

    tools.phantom.write(tmp_path / "src", edit=edit)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.series["depth"].to_list() == [7]
    assert cache.series["series_id"].to_list() == ["1.2.3.4"]
    assert list(cache.series["flags"][0]) == []


def test_a_file_that_comes_later_parts_its_series(tools, tmp_path, settled):
    """The first run sees one kind; the ids are those of a run that sees both at once."""
    write(tools, tmp_path / "src", 1, **T1)
    tools.run(tmp_path / "src", tmp_path / "out")
    write(tools, tmp_path / "src", 101, **T2)
    found = tools.cached(tmp_path / "src", tmp_path / "out")
    fresh = tools.cached(tmp_path / "src", tmp_path / "fresh")
    assert found.series.equals(fresh.series)
    assert tools.run(tmp_path / "src", tmp_path / "out")[-1].n_reused == 2


def test_damaged_elements_say_nothing(tools, tmp_path):
    """What no writer writes: the bytes are changed after writing."""
    tags = {"EchoTime": "97.25", "SeriesDescription": "T2", "ImageType": MR}
    write(tools, tmp_path / "src", 1, **tags)
    path = tmp_path / "src" / "1.dcm"
    path.write_bytes(path.read_bytes().replace(b"97.25", b"97,zz"))
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.is_empty()
    assert cache.series.select("depth", "series_type").rows() == [(7, "sagittal_t2")]
