"""A run that goes on: on the data that it was started on, wherever it was killed, for longer."""

import json
import logging
import shutil

import numpy as np
import polars as pl
import pytest
import torch

from lumbar.cache.errors import FormatError, InputError, MissingError
from lumbar.cache.format import COORDINATES_TABLE, LABELS_TABLE, SERIES_TABLE
from lumbar.cache.index import build_index
from lumbar.cache.labels import label_table, severities_of
from lumbar.cache.store import Cache
from lumbar.cache.tables import read_table, write_cache_file, write_table
from lumbar.cache.volumes import adopt_volume, volume_folder
from lumbar.train.run.cache import cache_of
from lumbar.train.run.config import read_config, resumed_config
from lumbar.train.run.data import DATA, RunData, read_run_data
from lumbar.train.run.folder import CONFIG, is_of_folds
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.cross_validation import train_folds
from lumbar.train.trainer.events import EpochFinished, RunFinished, RunStarted
from lumbar.train.trainer.loop import train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quick(uncompiled_reader, monkeypatch):
    monkeypatch.setattr("lumbar.train.trainer.run_log.draw_curves", lambda *_: None)


@pytest.fixture
def config(small_config):
    return small_config("optim.epochs=2")


def start(cache, config, run, *, resume=False):
    return train(cache, config, run, device=CPU, threads=1, resume=resume)


def stopped(cache, config, run, *, epochs=1):
    """Train some epochs and stop as a killed run does: nothing is written afterwards."""
    events = start(cache, config, run)
    for event in events:
        if isinstance(event, EpochFinished) and event.epoch + 1 == epochs:
            break
    events.close()
    return run


def refusal(kind, cache, config, run):
    with pytest.raises(kind) as caught:
        list(start(cache, config, run, resume=True))
    return str(caught.value)


@pytest.fixture
def changed(spine_root, tmp_path):
    """Return a function that copies the cache and lets a change be made to its tables."""

    def make(*, labels=None, points=None, without=(), moved="again"):
        root = tmp_path / moved
        root.mkdir()
        cache = Cache(spine_root)
        for study_id, series_id in cache.series.select("study_id", "series_id").iter_rows():
            if (study_id, series_id) not in without:
                adopt_volume(spine_root, root, study_id, series_id)
        write_table(root, SERIES_TABLE, build_index(root))
        table = cache.labels
        if labels:
            severity = severities_of(table)
            labels(table["study_id"].to_list(), severity)
            table = label_table(table["study_id"].to_list(), severity)
        write_table(root, LABELS_TABLE, table)
        named = cache.coordinates if points is None else points(cache)
        write_table(root, COORDINATES_TABLE, named)
        write_table(root, "rejected.parquet", cache.rejected)
        write_cache_file(root, config=cache.description["config"], counts={"series": 1})
        return Cache(root)

    return make


def held_out_study(cache, config):
    return sorted(split_samples(cache, config).held_out_severity)[0]


def test_a_run_records_its_cache_and_what_it_reads_of_it(spine, config, tmp_path):
    run = stopped(spine, config, tmp_path / "run")
    data = read_run_data(run)
    split = split_samples(spine, config)
    assert data == RunData.of(spine, split)
    assert data.cache == spine.root.resolve()
    assert set(data.studies) == {*split.train_studies, *split.held_out_severity}
    read = {(s, series) for s, of in data.studies.items() for series in of.voxels}
    rows = split.train.rows + split.held_out.rows
    assert read == set(spine.series[rows].select("study_id", "series_id").rows())
    assert not data.changes_to(RunData.of(Cache(spine.root), split_samples(spine, config)))


def test_a_copy_of_the_cache_elsewhere_is_the_same_cache(spine, config, tmp_path, changed):
    run = stopped(spine, config, tmp_path / "run")
    copy = changed()
    assert isinstance(list(start(copy, config, run, resume=True))[-1], RunFinished)
    assert read_run_data(run).cache == copy.root.resolve()


def test_corrected_labels_of_held_out_studies_are_noticed(spine, config, tmp_path, changed):
    run = stopped(spine, config, tmp_path / "run")
    study_id = held_out_study(spine, config)

    def correct(study_ids, severity):
        known = severity[study_ids.index(study_id)]
        known[7] = (known[7] + 1) % 3  # not of the spinal canal: the same deal of the studies

    cache = changed(labels=correct)
    message = refusal(InputError, cache, config, run)
    assert f"1 studies of other labels ({study_id})" in message
    assert str(cache.root) in message
    assert str(spine.root) in message
    assert "--cache" in message


def test_series_that_are_lost_or_of_other_voxels_are_noticed(spine, config, tmp_path, changed):
    run = stopped(spine, config, tmp_path / "run")
    cache = changed(without={("s02", "1t2")})
    assert "1 series fewer (s02/1t2)" in refusal(InputError, cache, config, run)
    shutil.rmtree(cache.root)
    metadata = volume_folder(changed().root, "s10", "0t2") / "zarr.json"
    document = json.loads(metadata.read_bytes())
    document["attributes"]["crc32c"] += 1
    metadata.unlink()  # a link to the other cache's
    metadata.write_bytes(json.dumps(document).encode())
    write_table(cache.root, SERIES_TABLE, build_index(cache.root))
    message = refusal(InputError, Cache(cache.root), config, run)
    assert "1 series of other voxels (s10/0t2)" in message


def test_series_that_a_run_does_not_read_change_nothing(spine, config, tmp_path, changed):
    run = stopped(spine, config, tmp_path / "run")
    cache = changed(without={("s01", "9ax"), ("s04", "9ax")})
    assert isinstance(list(start(cache, config, run, resume=True))[-1], RunFinished)


def test_moved_points_are_noticed_where_discs_lie_at_them(spine, small_config, changed):
    def points(shift):
        def make(cache):
            rows = cache.series.filter(pl.col("series_type") == "sagittal_t2")
            zeros = [0.0] * 4
            return pl.DataFrame(
                [
                    (s, i, "spinal_canal_stenosis", level, 1, 30.0, 30.0, 2.0, 30.0 + shift, *zeros)
                    for s, i in rows.select("study_id", "series_id").iter_rows()
                    for level in ("l1_l2", "l4_l5")
                ],
                schema=cache.coordinates.schema,
                orient="row",
            )

        return make

    config = small_config("discs=true")
    before, after = changed(points=points(0)), changed(points=points(2), moved="other")
    old, new = (RunData.of(c, split_samples(c, config)) for c in (before, after))
    (change,) = old.changes_to(new)
    assert "studies of other points (s" in change
    whole = small_config()
    old, new = (RunData.of(c, split_samples(c, whole)) for c in (before, after))
    assert not old.changes_to(new)


def test_a_cache_in_the_other_profile_is_the_same(spine, config):
    data = RunData.of(spine, split_samples(spine, config))
    studies = {
        study_id: type(of)(
            side=of.side,
            voxels={name: crc + 1 for name, crc in of.voxels.items()},
            geometry=of.geometry,
            labels=of.labels,
            points=of.points,
        )
        for study_id, of in data.studies.items()
    }
    assert data.changes_to(RunData(data.cache, "fast", studies))
    assert not data.changes_to(RunData(data.cache, "archive", studies))


def test_a_run_of_before_goes_on_with_a_notice_to_the_same_bits(spine, config, tmp_path, caplog):
    reference = tmp_path / "whole"
    list(start(spine, config, reference))
    run = stopped(spine, config, tmp_path / "run")
    (run / DATA).unlink()
    with caplog.at_level(logging.WARNING):
        list(start(spine, config, run, resume=True))
    assert "before runs recorded what they read" in caplog.text
    for name in ("oof.parquet", "config.toml"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()
    mine, theirs = (
        torch.load(path / "last.pt", weights_only=True)["model"] for path in (run, reference)
    )
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert read_run_data(run) is not None  # from now on it is checked


def test_a_damaged_record_is_told(spine, config, tmp_path):
    run = stopped(spine, config, tmp_path / "run")
    (run / DATA).write_text('{"version": 7}')
    assert "version 7" in refusal(FormatError, spine, config, run)


def killed_while_claiming(run, *, wrote):
    """Leave what a kill leaves: files written aside, then whole ones, one after the other."""
    for path in run.iterdir():
        if path.name not in wrote:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (run / ".config.toml.4711").write_text("half")


@pytest.mark.parametrize("wrote", [set(), {DATA}])
def test_killed_before_it_had_its_folder_a_run_is_begun_anew(spine, config, tmp_path, wrote):
    run = stopped(spine, config, tmp_path / "run")
    killed_while_claiming(run, wrote=wrote)
    assert isinstance(list(start(spine, config, run))[-1], RunFinished)


def test_killed_before_its_first_checkpoint_a_run_is_gone_on_with(spine, config, tmp_path):
    reference = tmp_path / "whole"
    list(start(spine, config, reference))
    run = stopped(spine, config, tmp_path / "run")
    killed_while_claiming(run, wrote={DATA, CONFIG, ".lock"})
    with pytest.raises(InputError, match=r"lumbar train --resume .*run") as caught:
        list(start(spine, config, run))
    assert "another --run" in str(caught.value)
    events = list(start(spine, config, run, resume=True))
    assert events[0].first_epoch == 0
    assert (run / "oof.parquet").read_bytes() == (reference / "oof.parquet").read_bytes()


@pytest.mark.parametrize("wrote", [{DATA}, {DATA, "fold-0"}, {DATA, "fold-0", CONFIG}])
def test_killed_before_its_first_fold_a_folder_of_folds_is_of_use(
    spine, small_config, tmp_path, wrote
):
    config = small_config("optim.epochs=1", "split.folds=2")
    run = tmp_path / "run"
    events = train_folds(spine, config, run, device=CPU, threads=1)
    next(events)  # the first fold is about to start
    events.close()
    assert is_of_folds(run)
    killed_while_claiming(run, wrote=wrote)
    resumes = CONFIG in wrote
    assert is_of_folds(run) is resumes
    if resumes:
        with pytest.raises(InputError, match=r"--resume"):
            next(train_folds(spine, config, run, device=CPU, threads=1))
    *_, last = train_folds(spine, config, run, resume=resumes, device=CPU, threads=1)
    assert last.run == run


def test_a_lost_or_damaged_checkpoint_says_what_is_still_there(spine, config, tmp_path):
    run = stopped(spine, config, tmp_path / "run")
    (run / "last.pt").write_bytes((run / "last.pt").read_bytes()[:1000])
    damaged = refusal(FormatError, spine, config, run)
    (run / "last.pt").unlink()
    for message in (damaged, refusal(InputError, spine, config, run)):
        assert "best.pt" in message
        assert "the metrics of 1 epochs" in message
        assert "oof.parquet" in message
        assert "evaluate" in message
        assert "anew" not in message


def test_a_finished_run_can_have_more_epochs(spine, small_config, tmp_path):
    config = small_config("optim.epochs=2", "optim.schedule=cosine")
    run = tmp_path / "run"
    list(start(spine, config, run))
    before = (run / "metrics.jsonl").read_text()
    longer = resumed_config(run / CONFIG, ["optim.epochs=4"])
    assert longer.optim.epochs == 4
    events = list(start(spine, longer, run, resume=True))
    assert events[0].first_epoch == 2
    said = events[0].schedule
    assert "4 epochs in the place of 2" in said
    assert "cosine" in said
    epochs = [e for e in events if isinstance(e, EpochFinished)]
    assert [e.epoch for e in epochs] == [2, 3]
    assert epochs[0].learning_rate > epochs[1].learning_rate > 0
    assert f"{epochs[0].learning_rate:.3g}" in said
    assert (run / "metrics.jsonl").read_text().startswith(before)
    assert read_config(run / CONFIG) == longer
    (started, finished) = start(spine, longer, run, resume=True)
    assert isinstance(started, RunStarted)
    assert started.schedule == ""
    assert isinstance(finished, RunFinished)


@pytest.mark.parametrize(
    ("overrides", "epochs", "said"),
    [
        ((), 1, "2 or more, which are trained already"),
        (("finish.epochs=1",), 9, "2, for the second phase has begun"),
        (("optim.epochs=9", "optim.patience=1", "optim.lr=1e-9"), 30, "optim.patience = 1 has"),
    ],
)
def test_epochs_that_a_run_cannot_have_are_refused(
    spine, small_config, tmp_path, overrides, epochs, said
):
    config = small_config("optim.epochs=2", *overrides)
    list(start(spine, config, tmp_path / "run"))
    longer = resumed_config(tmp_path / "run" / CONFIG, [f"optim.epochs={epochs}"])
    assert said in refusal(InputError, spine, longer, tmp_path / "run")


def test_no_other_key_is_changed_on_the_way(spine, config, tmp_path):
    run = stopped(spine, config, tmp_path / "run")
    with pytest.raises(InputError, match=r"got optim.lr; expected optim.epochs alone"):
        resumed_config(run / CONFIG, ["optim.lr=1", "optim.epochs=7"])


def test_a_run_s_cache_is_the_one_that_is_used(spine, config, tmp_path, changed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = stopped(spine, config, tmp_path / "run")
    assert cache_of([run], None) == spine.root.resolve()
    assert cache_of([run / "oof.parquet"], None) == spine.root.resolve()
    copy = changed()
    assert cache_of([run], copy.root) == copy.root
    other = changed(without={("s10", "0t2")}, moved="other")
    with pytest.raises(InputError, match=r"not the one that the run was trained on") as caught:
        cache_of([run], other.root)
    assert str(other.root) in str(caught.value)
    assert str(spine.root) in str(caught.value)
    list(start(other, config, tmp_path / "second"))
    with pytest.raises(InputError, match=r"runs of different caches") as caught:
        cache_of([run, tmp_path / "second"], None)
    assert "other" in str(caught.value)
    shutil.rmtree(other.root)
    with pytest.raises(MissingError, match=r"name it by --cache where it lies now"):
        cache_of([tmp_path / "second"], None)
    (run / DATA).unlink()
    assert str(cache_of([run], None)) == "cache"


def test_predict_names_both_caches_where_they_were_preprocessed_otherwise(
    spine, config, tmp_path, command_line, changed
):
    run = tmp_path / "run"
    list(start(spine, config, run))
    other = changed(moved="other")
    write_cache_file(other.root, config={"size": 96, "dtype": "uint8"}, counts={"series": 1})
    told = command_line("predict", run, "--cache", other.root, "--out", tmp_path / "s.csv")
    assert told.status == 2
    assert f"{other.root}; got size = 96; expected size = 80, as in {spine.root}" in told.err
    assert not (tmp_path / "s.csv").exists()


def test_a_cache_that_changed_in_its_place_is_used_with_a_warning(
    config, tmp_path, changed, caplog
):
    cache = changed()
    run = stopped(cache, config, tmp_path / "run")
    severity = severities_of(read_table(cache.root, LABELS_TABLE))
    study_ids = cache.labels["study_id"].to_list()
    study_id = held_out_study(cache, config)
    known = severity[study_ids.index(study_id)]
    known[7] = np.int8((known[7] + 1) % 3)
    write_table(cache.root, LABELS_TABLE, label_table(study_ids, severity))
    with caplog.at_level(logging.WARNING):
        assert cache_of([run], None) == cache.root.resolve()
    assert f"1 studies of other labels ({study_id})" in caplog.text
