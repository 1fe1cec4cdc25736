"""A UID that stands for several series or patients: each is cached by itself, by stable ids."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.pipeline.dicom.contrast import Contrast, Patient, part_by_contrast, part_by_patient
from lumbar.pipeline.dicom.identity import SUFFIX, shared_uid, split_ids

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


def test_a_file_that_comes_later_parts_its_series(tools, tmp_path, monkeypatch):
    """The first run sees one kind; the ids are those of a run that sees both at once."""
    monkeypatch.setattr("lumbar.pipeline.output.unchanged.SETTLED_NS", -(10**12))
    write(tools, tmp_path / "src", 1, **T1)
    tools.run(tmp_path / "src", tmp_path / "out")
    write(tools, tmp_path / "src", 101, **T2)
    found = tools.cached(tmp_path / "src", tmp_path / "out")
    fresh = tools.cached(tmp_path / "src", tmp_path / "fresh")
    assert found.series.equals(fresh.series)
    assert tools.run(tmp_path / "src", tmp_path / "out")[-1].n_reused == 2


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
def test_most_files_speak_for_a_series_not_the_first_one(tools, tmp_path, named):
    def edit(dataset, index):
        if index != named:
            dataset.SeriesDescription = "T2"

    tools.phantom.write(tmp_path / "src", edit=edit)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.series["series_type"].to_list() == ["sagittal_t2"]


texts = st.sampled_from(["", "t1", "t2", "stir"])
times = st.sampled_from([None, 9.8, 10.0, 100.0, 101.0])
contrasts = st.builds(Contrast, texts, st.sampled_from(["", "water", "fat"]), times, times, times)


@given(st.lists(contrasts, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_labels_do_not_depend_on_the_order_of_the_files(found, random):
    labels = part_by_contrast(found)
    order = list(range(len(found)))
    random.shuffle(order)
    shuffled = part_by_contrast([found[i] for i in order])
    assert shuffled == [labels[i] for i in order]
    ids = split_ids("1.2.3", labels)
    assert split_ids("1.2.3", shuffled) == [ids[i] for i in order]
    assert "1.2.3" in ids
    assert {shared_uid(one) for one in ids} == {"1.2.3"}
    assert all(SUFFIX.search(one) for one in ids if one != "1.2.3")
    assert len(set(ids)) == len(set(labels))


@given(st.lists(contrasts, min_size=2, max_size=20))
def test_files_of_one_label_agree(found):
    labels = part_by_contrast(found)
    for label in set(labels):
        members = [c for c, one in zip(found, labels, strict=True) if one == label]
        assert len({c.description for c in members} - {""}) <= 1
        assert len({c.component for c in members}) == 1


def test_who_names_nobody_is_one_patient_of_two_at_most():
    both = [Patient("a", ""), Patient("b", ""), Patient("", "")]
    assert len(set(part_by_patient(both))) == 3
    assert set(part_by_patient(both[::2])) == {""}


def test_damaged_elements_say_nothing(tools, tmp_path):
    """What no writer writes: the bytes are changed after writing."""
    tags = {"EchoTime": "97.25", "SeriesDescription": "T2", "ImageType": MR}
    write(tools, tmp_path / "src", 1, **tags)
    path = tmp_path / "src" / "1.dcm"
    path.write_bytes(path.read_bytes().replace(b"97.25", b"97,zz"))
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.is_empty()
    assert cache.series.select("depth", "series_type").rows() == [(7, "sagittal_t2")]


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
