"""Studies of one patient: told from the headers, kept without a name, the same in every way."""

import hashlib
import json
import shutil

import pytest

from lumbar.cache.errors import FormatError
from lumbar.cache.patients import Hashes, patients_of, read_hashes
from lumbar.cache.store import Cache
from lumbar.cache.verify import Problem, verify
from lumbar.inspect.summary import summarise
from lumbar.pipeline.maintenance.convert_profile import reprofile
from lumbar.pipeline.maintenance.merge import merge
from lumbar.pipeline.source import patients
from lumbar.pipeline.source.shard import Shard

PATIENTS = {"101": "Meier^1", "102": "7", "103": "Meier^1 ", "104": "", "105": "", "106": "7"}
"""PatientID of each study: two patients have two, and of two nobody knows."""
GROUPS = [["101", "103"], ["102", "106"]]


def add_study(tools, src, study_id, patient_id):
    def name(dataset, _):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_id, f"{study_id}.1"
        dataset.PatientID = patient_id

    tools.phantom.write(src / study_id, edit=name)


@pytest.fixture
def src(tools, tmp_path):
    for study_id, patient_id in PATIENTS.items():
        add_study(tools, tmp_path / "src", study_id, patient_id)
    return tmp_path / "src"


def groups(cache):
    return json.loads((cache / "cache.json").read_text())["source"]["patients"]


def everything(cache):
    return b"".join(p.read_bytes() for p in sorted(cache.rglob("*")) if p.is_file())


def test_studies_of_one_patient_are_told_and_nobody_is_named(tools, src, tmp_path):
    cache = tools.cached(src, tmp_path / "cache")
    assert groups(cache.root) == GROUPS
    assert cache.knows_patients
    assert cache.patients == {"101": "101", "103": "101", "102": "102", "106": "102"}
    summary = summarise(cache)
    assert (summary.n_patients_with_several, summary.n_studies_of_these) == (2, 4)
    held = everything(cache.root)
    assert b"Meier" not in held
    for made in (hashlib.sha256, hashlib.md5, hashlib.sha1):
        for salt in ("", *PATIENTS):
            assert made(f"{salt}Meier^1".encode()).hexdigest()[:16].encode() not in held
    assert (cache.root / ".patients").stat().st_mode & 0o077 == 0


def test_the_hashes_depend_on_files_that_the_cache_does_not_have(tools, src, tmp_path):
    tools.run(src, tmp_path / "cache")
    other = tmp_path / "other"
    shutil.copytree(src, other)
    first = min(other.rglob("*.dcm"))
    first.write_bytes(first.read_bytes()[:-2] + b"\x01\x02")  # a pixel
    tools.run(other, tmp_path / "again")
    one, two = read_hashes(tmp_path / "cache"), read_hashes(tmp_path / "again")
    assert one.key_id != two.key_id
    assert not set(one.of_study.values()) - {""} & set(two.of_study.values())
    assert groups(tmp_path / "again") == GROUPS


def test_shards_and_their_merge_know_what_one_run_knows(tools, src, tmp_path):
    tools.run(src, tmp_path / "whole")
    shards = [tmp_path / f"shard{number}" for number in (1, 2, 3, 4, 5)]
    for number, shard in enumerate(shards, start=1):
        tools.run(src, shard, shard=Shard(number, 5))
    assert [group for shard in shards for group in groups(shard)] != GROUPS
    list(merge(tmp_path / "joined", shards))
    for name in ("cache.json", ".patients"):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_cache_in_another_profile_knows_them_too(tools, src, tmp_path):
    tools.run(src, tmp_path / "cache")
    list(reprofile(tmp_path / "cache", tmp_path / "archive", "archive", workers=0))
    assert groups(tmp_path / "archive") == GROUPS
    assert read_hashes(tmp_path / "archive") == read_hashes(tmp_path / "cache")


def test_a_later_study_of_a_known_patient_is_told_without_reading_the_others(
    tools, src, tmp_path, monkeypatch
):
    tools.run(src, tmp_path / "cache")
    add_study(tools, src, "201", "7")
    read = []
    reading = patients._read_patient
    monkeypatch.setattr(
        patients,
        "_read_patient",
        lambda images, files: read.append(files) or reading(images, files),
    )
    tools.run(src, tmp_path / "cache")
    assert [files[0].split("/")[0] for files in read] == ["201"]
    assert groups(tmp_path / "cache") == [["101", "103"], ["102", "106", "201"]]
    read.clear()
    tools.run(src, tmp_path / "cache")
    assert not read


def test_under_another_key_studies_that_are_gone_stay_with_their_patient(tools, src, tmp_path):
    tools.run(src, tmp_path / "cache")
    shutil.rmtree(src / "101")  # the first file, of which the key is made
    add_study(tools, src, "203", "Meier^1")
    tools.run(src, tmp_path / "cache")
    assert groups(tmp_path / "cache") == [["101", "103", "203"], ["102", "106"]]


def test_a_cache_of_before_learns_it_by_the_same_command(tools, src, tmp_path):
    cache = tools.cached(src, tmp_path / "cache")
    before = (cache.root / "cache.json").read_bytes()
    document = json.loads(before)
    del document["source"]["patients"]
    del document["crc32c"]
    (cache.root / "cache.json").write_text(json.dumps(document, indent=2) + "\n")
    (cache.root / ".patients").unlink()
    old = Cache(cache.root)
    assert not old.knows_patients
    assert old.patients == {}
    assert summarise(old).n_patients_with_several is None
    tools.run(src, cache.root)
    assert (cache.root / "cache.json").read_bytes() == before


def test_a_damaged_record_is_found_and_made_anew(tools, src, tmp_path, caplog):
    cache = tmp_path / "cache"
    tools.run(src, cache)
    whole = (cache / ".patients").read_bytes()
    (cache / ".patients").write_bytes(whole[:40] + b"x" + whole[41:])
    with pytest.raises(FormatError, match=r"remove it"):
        read_hashes(cache)
    (problem,) = [event for event in verify(cache) if isinstance(event, Problem)]
    assert problem.where.endswith(".patients")
    tools.run(src, cache)
    assert "record of the patients" in caplog.text
    assert (cache / ".patients").read_bytes() == whole


def test_who_has_one_study_or_no_id_is_a_patient_of_his_own():
    hashes = Hashes("k", {"a": "1", "b": "", "c": "", "d": "1", "e": "2"})
    assert hashes.groups() == (("a", "d"),)
    assert hashes.groups((("c", "gone"), ("a", "e"))) == (("a", "d"), ("c", "gone"))
    assert patients_of([("d", "a")]) == {"a": "a", "d": "a"}


def test_inspect_says_how_many_patients_have_several(tools, src, tmp_path, command_line):
    cache = tools.cached(src, tmp_path / "cache")
    said = command_line("inspect", cache.root).out
    assert "2 patients have several studies, 4 in all" in said
    path = cache.root / "cache.json"
    path.write_text(json.dumps({**cache.description, "source": {}}))
    assert "is not recorded" in command_line("inspect", cache.root).out
    path.write_text(json.dumps({**cache.description, "source": {"patients": []}}))
    assert "no patient has several studies" in command_line("inspect", cache.root).out
