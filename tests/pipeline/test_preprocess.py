"""The whole offline stage on generated files: tables, resuming, refusing, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fixtures.dicom import tree

from lumbar.cache.errors import BusyError, InputError, LumbarError, MissingError
from lumbar.cache.files.lock import locked
from lumbar.cache.format import LABELS_SCHEMA
from lumbar.cache.names import CELLS, SEVERITIES, SEVERITY_TEXTS
from lumbar.cache.store import Cache
from lumbar.cache.verify import Problem, verify
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.events import Finished, Planned, Scanned, SeriesFinished
from lumbar.pipeline.preprocess import preprocess
from lumbar.pipeline.reject import Reason
from lumbar.pipeline.series import convert as series_module


def test_tables_of_the_data_set(tools, tmp_path, rsna):
    events = tools.run(rsna, tmp_path / "out")
    cache = Cache(tmp_path / "out")
    types = dict(
        zip(
            cache.series["study_id"] + "/" + cache.series["series_id"],
            cache.series["series_type"],
            strict=True,
        )
    )
    assert types == {"100/7": "sagittal_t2", "100/8": "axial_t2", "200/7": "sagittal_t1"}
    assert [flags.to_list() for flags in cache.series["flags"]] == [[], [], []]
    assert cache.rejected.is_empty()
    assert [type(event) for event in events] == [Scanned, Planned, *[SeriesFinished] * 3, Finished]
    assert events[0].n_files == events[1].n_files == events[-1].n_files == 21
    assert (events[1].n_series, events[-1].n_series, events[-1].n_reused) == (3, 3, 0)
    assert [problem for problem in verify(tmp_path / "out") if isinstance(problem, Problem)] == []


def test_labels_agree_with_a_naive_loop(tools, tmp_path, rsna):
    labels = tools.cached(rsna, tmp_path / "out").labels
    rows = {
        row["study_id"]: row
        for row in pl.read_csv(rsna / "train.csv", infer_schema=False).iter_rows(named=True)
    }
    assert labels["study_id"].to_list() == ["100", "200"]
    for row in labels.iter_rows(named=True):
        for cell in CELLS:
            text = rows[row["study_id"]][cell]
            assert row[f"{cell}_known"] == bool(text)
            for severity, name in zip(SEVERITIES, SEVERITY_TEXTS, strict=True):
                assert row[f"{cell}_{severity}"] == int(text == name)


def test_points_lie_on_the_phantom(tools, tmp_path, rsna):
    points = tools.cached(rsna, tmp_path / "out", PreprocessConfig(size=64)).coordinates
    first, second, lost = points.iter_rows(named=True)
    fast = {"rows": 24, "columns": 20, "row_spacing": 3.0, "column_spacing": 4.0}
    for row, phantom, x, y in (
        (first, tools.planes["sagittal"], 10.5, 7.25),
        (second, tools.planes["axial"], 12.0, 4.0),
    ):
        place = replace(phantom, **fast).points(row["instance_number"] - 1, y, x)
        assert np.allclose([row["x_mm"], row["y_mm"], row["z_mm"]], place, atol=1e-4)
        assert row["d"] == row["instance_number"] - 1
    assert (first["condition"], first["level"]) == ("spinal_canal_stenosis", "l4_l5")
    assert [lost[name] for name in ("d", "h", "w", "x_mm", "y_mm", "z_mm")] == [None] * 6
    assert (lost["x"], lost["instance_number"]) == (3.0, 99)


def test_point_that_is_cropped_out_keeps_its_place_in_the_patient(tools, tmp_path, rsna):
    path = rsna / "train_label_coordinates.csv"
    path.write_text(path.read_text().replace("10.5,7.25", "0.0,0.0"))
    tight = PreprocessConfig(size=32, grid="spacing", spacing_mm=1.0)
    cropped = tools.cached(rsna, tmp_path / "out", tight).coordinates.row(0, named=True)
    whole = tools.cached(rsna, tmp_path / "whole").coordinates.row(0, named=True)
    assert [cropped[axis] for axis in "dhw"] == [None] * 3
    for axis in ("x", "y", "x_mm", "y_mm", "z_mm"):
        assert abs(cropped[axis] - whole[axis]) < 1e-4
    assert whole["d"] == 2
    assert [e for e in verify(tmp_path / "out") if isinstance(e, Problem)] == []


def test_workers_give_the_bytes_of_one_process(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "one")
    events = tools.run(rsna, tmp_path / "two", workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("finished", [0, 1, 2, 3])
def test_stopped_run_goes_on_to_the_same_bytes(tools, tmp_path, rsna, finished, decoded):
    (rsna / "train_images" / "100" / "8" / "broken.dcm").write_bytes(b"no")
    tools.run(rsna, tmp_path / "whole")
    run = preprocess(rsna, tmp_path / "out", tools.exact, workers=0)
    done = list(islice(run, 2 + finished))
    run.close()
    assert sum(isinstance(event, SeriesFinished) for event in done) == finished
    assert not (tmp_path / "out" / "series.parquet").exists()
    leave_scraps(tmp_path / "out")
    decoded.clear()
    assert tools.run(rsna, tmp_path / "out")[1].n_reused == finished
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    # Only the series with a broken file is decoded again: its rejected row was not written yet.
    assert len(decoded) == 3 - finished + (finished >= 2)


def leave_scraps(out):
    """Leave what a killed run leaves."""
    (out / ".scratch" / "100+7").mkdir(parents=True)
    (out / ".scratch" / "100+7" / "zarr.json").write_text("{")
    (out / ".series.parquet.77").write_text("half")
    (out / "volumes.zarr" / "100").mkdir(parents=True, exist_ok=True)
    (out / "volumes.zarr" / "100" / ".zarr.json.77").write_text("half")


def test_killed_run_goes_on_to_the_same_bytes(tools, tmp_path, rsna):
    """SIGKILL in the middle, with workers at work: no orphan goes on, nothing half is kept."""
    for study in range(300, 306):
        tools.phantom.write(rsna / "train_images" / str(study) / "1", rle=True)
    tools.run(rsna, tmp_path / "whole")
    script = tmp_path / "run.py"
    script.write_text(KILLED_RUN)
    arguments = [sys.executable, script, rsna, tmp_path / "out", tools.exact.model_dump_json()]
    killed = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    workers = [int(word) for word in killed.stdout.split()]
    assert len(workers) == 2
    wait_for_end(workers)
    tools.run(rsna, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


KILLED_RUN = """
import multiprocessing, os, signal, sys
from pathlib import Path
from lumbar.pipeline.events import SeriesFinished
from lumbar.pipeline.preprocess import PreprocessConfig, preprocess

if __name__ == "__main__":
    src, out, config = sys.argv[1:]
    config = PreprocessConfig.model_validate_json(config)
    for event in preprocess(Path(src), Path(out), config, workers=2):
        if isinstance(event, SeriesFinished):
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
"""


def wait_for_end(pids):
    """Wait until processes are gone; a worker that outlives its parent by a minute fails."""
    for _ in range(1200):
        if not any(map(is_running, pids)):
            return
        time.sleep(0.05)
    pytest.fail("a worker goes on without its parent")


def is_running(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_unchanged_series_is_not_decoded_again(tools, tmp_path, rsna, decoded):
    (rsna / "train_images" / "100" / "8" / "broken.dcm").write_bytes(b"no")
    tools.run(rsna, tmp_path / "out")
    before = tree(tmp_path / "out")
    decoded.clear()
    finished = tools.run(rsna, tmp_path / "out")[-1]
    assert decoded == []
    assert finished.n_reused == 3
    assert finished.rejected_by_reason == {"not_dicom": 1}
    assert tree(tmp_path / "out") == before


def test_changed_file_is_decoded_again(tools, tmp_path, rsna, decoded):
    tools.run(rsna, tmp_path / "out")
    path = rsna / "train_images" / "200" / "7" / "3.dcm"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    decoded.clear()
    assert tools.run(rsna, tmp_path / "out")[-1].n_reused == 2
    assert decoded == ["7"]


def test_changed_csv_type_changes_the_volume(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "out")
    path = rsna / "train_series_descriptions.csv"
    path.write_text(path.read_text().replace("100,7,Sagittal T2/STIR", "100,7,Sagittal T1"))
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.series["series_type"].to_list() == ["sagittal_t1", "axial_t2", "sagittal_t1"]


def test_csv_wins_over_the_header_and_the_row_is_flagged(tools, tmp_path, rsna):
    path = rsna / "train_series_descriptions.csv"
    path.write_text(path.read_text().replace("200,7,Sagittal T1", "200,7,Axial T2"))
    uids = {"StudyInstanceUID": "200", "SeriesInstanceUID": "200.9"}
    coronal = replace(tools.planes["coronal"], encoded=1, tags=uids)
    coronal.write(rsna / "train_images" / "200" / "9")
    path.write_text(path.read_text() + "200,9,Axial T2\n")
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.series["series_type"].to_list()[2:] == ["axial_t2", "axial_t2"]
    assert [flags.to_list() for flags in cache.series["flags"]][2:] == [["plane_disagrees"]] * 2
    for row in (2, 3):
        axis = 0 if row == 2 else 1
        difference = tools.decoded_mm(cache, row) - tools.expected_mm(cache, row)[..., axis]
        assert np.abs(difference).max() < 0.03


def test_series_that_the_csv_does_not_name_is_flagged(tools, tmp_path, rsna):
    uids = {"StudyInstanceUID": "300", "SeriesInstanceUID": "300.1"}
    tools.with_tags(SeriesDescription="T2", **uids).write(rsna / "train_images" / "300" / "1")
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.series["flags"].to_list()[-1] == ["not_in_csv"]
    assert cache.series["series_type"].to_list()[-1] == "sagittal_t2"


def test_series_without_files_and_files_in_the_wrong_place_are_rows(tools, tmp_path, rsna):
    path = rsna / "train_series_descriptions.csv"
    path.write_text(path.read_text() + "400,1,Sagittal T1\n")
    (rsna / "train_images" / "stray.dcm").write_bytes(b"x")
    deep = rsna / "train_images" / "100" / "7" / "deeper" / "1.dcm"
    deep.parent.mkdir()
    deep.write_bytes(b"x")
    rows = tools.cached(rsna, tmp_path / "out").rejected.rows()
    assert rows == [
        ("", "", "stray.dcm", "wrong_place", "0 folders deep instead of 2"),
        ("100", "7", "100/7/deeper/1.dcm", "wrong_place", "3 folders deep instead of 2"),
        ("400", "1", "", "no_files", "sagittal_t1"),
    ]


def test_changed_configuration_is_refused_with_both_values(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "out", PreprocessConfig(size=64))
    before = tree(tmp_path / "out")
    with pytest.raises(InputError, match=r"got size = 96; expected size = 64"):
        tools.run(rsna, tmp_path / "out", PreprocessConfig(size=96))
    assert tree(tmp_path / "out") == before
    tools.run(rsna, tmp_path / "out", PreprocessConfig(size=96), overwrite=True)
    tools.run(rsna, tmp_path / "fresh", PreprocessConfig(size=96))
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_archive_holds_the_same_voxels_in_fewer_bytes(tools, tmp_path, rsna):
    plain = tools.cached(rsna, tmp_path / "fast")
    archive = tools.exact.model_copy(update={"profile": "archive"})
    compressed = tools.cached(rsna, tmp_path / "archive", archive)
    assert compressed.profile == compressed.description["config"]["profile"] == "archive"
    assert compressed.series["nbytes"].sum() < 0.5 * plain.series["nbytes"].sum()
    for row in range(plain.series.height):
        assert np.array_equal(compressed.volume(row), plain.volume(row))
    assert [event for event in verify(tmp_path / "archive") if isinstance(event, Problem)] == []


def test_archive_is_the_same_bytes_from_workers_and_after_a_stop(tools, tmp_path, rsna):
    archive = tools.exact.model_copy(update={"profile": "archive"})
    tools.run(rsna, tmp_path / "whole", archive)
    run = preprocess(rsna, tmp_path / "out", archive, workers=0)
    assert isinstance(list(islice(run, 3))[-1], SeriesFinished)
    run.close()
    leave_scraps(tmp_path / "out")
    events = tools.run(rsna, tmp_path / "out", archive, workers=2)
    assert events[1].n_reused == 1
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_another_profile_is_refused_with_both(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "out")
    archive = tools.exact.model_copy(update={"profile": "archive"})
    with pytest.raises(InputError, match=r"got profile = archive; expected profile = fast"):
        tools.run(rsna, tmp_path / "out", archive)
    tools.run(rsna, tmp_path / "out", archive, overwrite=True)
    with pytest.raises(InputError, match=r"got profile = fast; expected profile = archive"):
        tools.run(rsna, tmp_path / "out")


def test_cache_made_before_there_were_profiles_is_taken_as_fast(tools, tmp_path, rsna, decoded):
    tools.run(rsna, tmp_path / "out")
    after = tree(tmp_path / "out")
    path = tmp_path / "out" / "cache.json"
    document = json.loads(path.read_text())
    assert document["config"].pop("profile") == "fast"
    path.write_text(json.dumps(document))
    for path in (tmp_path / "out").glob("volumes.zarr/*/*/zarr.json"):
        metadata = json.loads(path.read_text())
        del metadata["attributes"]["profile"], metadata["attributes"]["nbytes"]
        path.write_text(json.dumps(metadata))
    archive = tools.exact.model_copy(update={"profile": "archive"})
    with pytest.raises(InputError, match=r"got profile = archive; expected profile = fast"):
        tools.run(rsna, tmp_path / "out", archive)
    decoded.clear()
    tools.run(rsna, tmp_path / "out")
    assert decoded == []
    unlike = {"cache.json", "series.parquet"}  # they hold checksums of what was edited here
    for name, data in tree(tmp_path / "out").items():
        if str(name) not in unlike and not str(name).endswith("zarr.json"):
            assert data == after[name]
    assert [event for event in verify(tmp_path / "out") if isinstance(event, Problem)] == []


def test_changed_configuration_of_an_unfinished_cache_is_refused(tools, tmp_path, rsna):
    run = preprocess(rsna, tmp_path / "out", PreprocessConfig(size=64), workers=0)
    assert isinstance(list(islice(run, 2))[-1], Planned)
    run.close()
    with pytest.raises(InputError, match="another configuration"):
        tools.run(rsna, tmp_path / "out", PreprocessConfig(size=96))


def test_another_split_is_refused_with_both(tools, tmp_path, rsna):
    shutil.copytree(rsna / "train_images" / "100", rsna / "test_images" / "900")
    tools.run(rsna, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(InputError, match=r"another split: .*got split test; expected split train"):
        tools.run(rsna, tmp_path / "out", split="test")
    with pytest.raises(InputError, match="got a bare tree without a split"):
        tools.run(rsna / "train_images" / "100", tmp_path / "out")
    assert tree(tmp_path / "out") == before
    tools.run(rsna, tmp_path / "out", split="test", overwrite=True)
    tools.run(rsna, tmp_path / "fresh", split="test")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_csv_that_is_gone_for_one_run_empties_no_table(tools, tmp_path, rsna, caplog):
    tools.run(rsna, tmp_path / "out")
    before = tree(tmp_path / "out")
    for name in ("train.csv", "train_label_coordinates.csv"):
        (rsna / name).rename(tmp_path / name)
    tools.run(rsna, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    assert "labels.parquet: its 2 rows of an earlier run stay" in caplog.text
    cache = tools.cached(rsna, tmp_path / "out", overwrite=True)
    assert (cache.labels.height, cache.coordinates.height) == (0, 0)


def test_studies_of_the_source_are_known_and_stray_folders_are_none(tools, tmp_path, rsna):
    """An empty folder is a study only if the CSV names it."""
    images = rsna / "train_images"
    strays = ("notes/readme.txt", ".git/objects/12", "stray.dcm", "700/1/.DS_Store")
    for stray in (*strays, "__MACOSX/100/._7", "300/1/broken.dcm"):
        (images / stray).parent.mkdir(parents=True, exist_ok=True)
        (images / stray).write_text("x")
    (images / "400").mkdir()
    (images / "500").mkdir()
    (images / "600" / "1").mkdir(parents=True)
    path = rsna / "train_series_descriptions.csv"
    path.write_text(path.read_text() + "400,1,Sagittal T1\n")
    cache = tools.cached(rsna, images / "cache")
    assert cache.source_studies == ["100", "200", "300", "400"]
    assert cache.rejected.select("path", "reason").rows() == [
        ("stray.dcm", "wrong_place"),
        ("300/1/broken.dcm", "not_dicom"),
        ("", "no_files"),
        ("notes/readme.txt", "wrong_place"),
    ]
    assert cache.description["source"]["split"] == "train"


def test_studies_of_a_bare_tree_are_those_of_the_headers(tools, tmp_path):
    tags = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
    replace(tools.phantom, tags=tags).write(tmp_path / "src")
    for path in (tmp_path / "src").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    (tmp_path / "src" / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "notes" / "deep" / "readme.txt").write_text("x")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.series.is_empty()
    assert cache.source_studies == ["1.2.3"]


def test_second_run_is_refused(tools, tmp_path, rsna):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(BusyError, match=str(os.getpid())):
        tools.run(rsna, tmp_path / "out")


def test_vanished_series_stay_and_are_counted(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "out")
    shutil.rmtree(rsna / "train_images" / "100" / "7")
    finished = tools.run(rsna, tmp_path / "out")[-1]
    assert (finished.n_vanished, finished.n_series) == (1, 3)
    assert finished.rejected_by_reason == {}


def test_rows_of_a_vanished_study_stay_and_come_back_with_it(tools, tmp_path, rsna):
    study = rsna / "train_images" / "100"
    path = study / "8" / "3.dcm"
    path.write_bytes(path.read_bytes()[:-40])
    (study / "7" / "broken.dcm").write_bytes(b"no")
    tools.run(rsna, tmp_path / "out")
    before = (tmp_path / "out" / "rejected.parquet").read_bytes()
    rows = Cache(tmp_path / "out").rejected.select("series_id", "reason").rows()
    assert [series_id for series_id, _ in rows] == ["7", "8"]
    for place in (tmp_path / "away", study):
        (study if study.exists() else tmp_path / "away").rename(place)
        tools.run(rsna, tmp_path / "out")
        assert (tmp_path / "out" / "rejected.parquet").read_bytes() == before


def test_missing_series_that_comes_back_is_no_longer_missing(tools, tmp_path, rsna):
    series = rsna / "train_images" / "100" / "8"
    (series / "broken.dcm").write_bytes(b"no")
    series.rename(tmp_path / "away")
    assert tools.run(rsna, tmp_path / "out")[-1].rejected_by_reason == {"no_files": 1}
    (tmp_path / "away").rename(series)
    for _ in range(2):
        assert tools.run(rsna, tmp_path / "out")[-1].rejected_by_reason == {"not_dicom": 1}


def test_damaged_table_of_rejections_is_made_anew(tools, tmp_path, rsna, caplog):
    (rsna / "train_images" / "100" / "8" / "broken.dcm").write_bytes(b"no")
    tools.run(rsna, tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "out" / "rejected.parquet").write_bytes(b"damaged")
    tools.run(rsna, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    assert "decoded again" in caplog.text


def test_series_that_broke_leaves_the_cache(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "out")
    for path in (rsna / "train_images" / "200" / "7").iterdir():
        path.write_bytes(b"broken")
    events = tools.run(rsna, tmp_path / "out")
    assert events[-2].reason is Reason.NOT_DICOM
    assert events[-1].n_rejected_series == 1
    assert Cache(tmp_path / "out").series.height == 2
    assert not (tmp_path / "out" / "volumes.zarr" / "200").exists()


def test_bare_tree_is_grouped_by_uid_and_has_no_labels(tools, tmp_path):
    """Three series in one folder, file names that say nothing, sides from the header."""
    tags = {
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "SeriesDescription": "sag T1",
    }
    replace(tools.phantom, tags=tags).write(tmp_path / "src")
    tags |= {"SeriesInstanceUID": "1.2.3.2", "SeriesDescription": "ax"}
    tags |= {"EchoTime": "100", "RepetitionTime": "4000"}
    replace(tools.planes["axial"], tags=tags, first_file=50).write(tmp_path / "src")
    (tmp_path / "src" / "notes.txt").write_text("not DICOM")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.series["series_id"].to_list() == ["1.2.3.1", "1.2.3.2"]
    assert cache.series["series_type"].to_list() == ["sagittal_t1", "axial_t2"]
    assert cache.rejected.rows() == [("", "", "notes.txt", "not_dicom", "no DICM mark")]
    assert cache.labels.is_empty()
    assert cache.labels.schema == LABELS_SCHEMA
    assert cache.coordinates.is_empty()


def test_sop_instance_uids_may_repeat_within_a_study(tools, tmp_path, rsna):
    cache = tools.cached(rsna, tmp_path / "out")
    uids = [cache.attributes(row).sop_instance_uids for row in (0, 1)]
    assert uids[0] == uids[1]
    assert [cache.volume(row).shape[0] for row in range(3)] == [7, 7, 7]


def test_cache_inside_its_source_is_not_read(tools, tmp_path):
    tools.phantom.write(tmp_path / "src" / "dicom")
    tools.run(tmp_path / "src", tmp_path / "src" / "cache")
    finished = tools.run(tmp_path / "src", tmp_path / "src" / "cache")[-1]
    assert (finished.n_files, finished.rejected_by_reason) == (7, {})


def test_missing_folder_and_empty_folder_are_refused(tools, tmp_path):
    with pytest.raises(MissingError, match="no such source folder"):
        tools.run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        tools.run(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_csv_is_refused_before_anything_is_written(tools, tmp_path, rsna):
    path = rsna / "train.csv"
    path.write_text(path.read_text().replace("Severe", "Dreadful", 1))
    with pytest.raises(InputError, match="Dreadful"):
        tools.run(rsna, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_that_is_no_cache_is_left_alone(tools, tmp_path, rsna):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"neither empty nor a cache.*thesis\.tex"):
            tools.run(rsna, tmp_path / "out", overwrite=overwrite)
    assert tree(tmp_path / "out") == {"thesis.tex": b"precious"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("text", ['{"mine": 1}', '{"format_version": 1}', "no JSON"])
def test_foreign_file_of_the_name_opens_no_folder(tools, tmp_path, rsna, text, overwrite):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cache.json").write_text(text)
    (tmp_path / "out" / "labels.parquet").write_text("precious")
    before = tree(tmp_path / "out")
    with pytest.raises(LumbarError, match=r"cache\.json"):
        tools.run(rsna, tmp_path / "out", overwrite=overwrite)
    assert tree(tmp_path / "out") == before


def test_hidden_files_of_others_are_left_alone(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "out")
    for name in (".notes.txt", ".labels.parquet.bak", ".series.parquet.77"):
        (tmp_path / "out" / name).write_text("x")
    (tmp_path / "out" / ".editor.d").mkdir()
    tools.run(rsna, tmp_path / "out")
    left = {path.name for path in (tmp_path / "out").glob(".*.*")}
    assert left == {".notes.txt", ".labels.parquet.bak", ".editor.d"}


def test_test_split_has_no_labels(tools, tmp_path, rsna):
    shutil.copytree(rsna / "train_images" / "100", rsna / "test_images" / "900")
    (rsna / "test_series_descriptions.csv").write_text(
        "study_id,series_id,series_description\n900,7,Sagittal T2/STIR\n900,8,Axial T2\n"
    )
    cache = tools.cached(rsna, tmp_path / "out", split="test")
    assert cache.series["study_id"].unique().to_list() == ["900"]
    assert cache.labels.is_empty()
    assert tools.cached(rsna, tmp_path / "train").series["study_id"].n_unique() == 2


def test_images_folder_itself_is_the_data_set(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "root")
    tools.run(rsna / "train_images", tmp_path / "images")
    assert tree(tmp_path / "root") == tree(tmp_path / "images")


def test_unwritable_cache_stops_the_run(tools, tmp_path, rsna, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(series_module, "write_volume", full)
    with pytest.raises(LumbarError, match="No space left"):
        tools.run(rsna, tmp_path / "out")
    assert not (tmp_path / "out" / "series.parquet").exists()


def test_source_that_goes_away_stops_the_run_and_harms_no_volume(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "out")
    before = set(tree(tmp_path / "out"))
    run = preprocess(rsna, tmp_path / "out", tools.exact, workers=0)
    assert isinstance(list(islice(run, 2))[-1], Planned)
    rsna.rename(tmp_path / "gone")
    with pytest.raises(LumbarError, match="source is gone"):
        next(run)
    assert set(tree(tmp_path / "out")) == before


def test_unforeseen_failure_costs_one_series(tools, tmp_path, rsna, monkeypatch):
    genuine = series_module.build_volume

    def fails_once(task, *rest, **options):
        if task.series_id == "8":
            raise ZeroDivisionError
        return genuine(task, *rest, **options)

    monkeypatch.setattr(series_module, "build_volume", fails_once)
    cache = tools.cached(rsna, tmp_path / "out")
    assert cache.series.height == 2
    assert cache.rejected.select("series_id", "reason").rows() == [("8", "failed")]
    assert "ZeroDivisionError" in cache.rejected["detail"][0]


def test_links_to_folders_are_rows(tools, tmp_path):
    tools.phantom.write(tmp_path / "src")
    (tmp_path / "src" / "round").symlink_to(tmp_path / "src")
    os.mkfifo(tmp_path / "src" / "pipe")
    rejected = tools.cached(tmp_path / "src", tmp_path / "out").rejected
    assert rejected.select("path", "reason").rows() == [("pipe", "unreadable"), ("round", "link")]
    assert Path(rejected["detail"][1]) == tmp_path / "src"
