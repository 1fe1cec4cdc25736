import shutil

import numpy as np
import polars as pl
import pytest
import torch

from lumbar.cache.labels import severities_of
from lumbar.cache.store import Cache
from lumbar.train.evaluation.evaluate import evaluate
from lumbar.train.evaluation.metric import score
from lumbar.train.run.checkpoint import load_checkpoint
from lumbar.train.run.folder import fold_folder, is_of_folds
from lumbar.train.run.predictions import read_run
from lumbar.train.trainer.cross_validation import train_folds
from lumbar.train.trainer.events import EpochFinished, FoldsFinished, FoldStarted, RunStarted

CPU = torch.device("cpu")


@pytest.fixture
def quick(uncompiled_reader, small_config, monkeypatch):
    monkeypatch.setattr("lumbar.train.trainer.run_log.draw_curves", lambda *_: None)
    return small_config("optim.epochs=1", "split.folds=3")


def test_every_study_is_predicted_by_the_fold_that_did_not_see_it(quick, spine, tmp_path):
    run = tmp_path / "run"
    events = list(train_folds(spine, quick, run, device=CPU, threads=1))
    assert [event.fold for event in events if isinstance(event, FoldStarted)] == [0, 1, 2]
    assert is_of_folds(run)
    assert not is_of_folds(fold_folder(run, 0))
    parts = [pl.read_parquet(fold_folder(run, fold) / "oof.parquet") for fold in range(3)]
    joined = pl.read_parquet(run / "oof.parquet")
    assert joined.equals(pl.concat(parts).sort("study_id"))
    assert joined["study_id"].is_unique().all()
    labelled = (severities_of(spine.labels) >= 0).any(axis=1)
    with_series = set(spine.series.filter(pl.col("series_type") == "sagittal_t2")["study_id"])
    assert set(joined["study_id"]) == set(spine.labels["study_id"].filter(labelled)) & with_series
    last = events[-1]
    assert isinstance(last, FoldsFinished)
    evaluation = evaluate(read_run(run), spine.labels, where=run)
    assert (last.score, last.prior) == (evaluation.score, evaluation.training_prior)
    # Each study is scored with the prior of the fold that held it out, whose labels it is not of.
    prior_of = {
        study_id: load_checkpoint(fold_folder(run, fold) / "best.pt")[0].prior
        for fold, part in enumerate(parts)
        for study_id in part["study_id"]
    }
    labels = spine.labels.filter(pl.col("study_id").is_in(list(prior_of))).sort("study_id")
    priors = np.stack([prior_of[study_id] for study_id in labels["study_id"]])
    assert last.prior == score(priors, severities_of(labels))
    assert len(np.unique(priors[:, 0], axis=0)) == 3
    assert last.prior.total > evaluation.best_constant.total
    assert evaluation.auc["left_subarticular_stenosis"] is None, "no fold has a model of it"
    assert evaluation.auc["spinal_canal_stenosis"] is not None


def test_folds_that_are_done_stay_and_the_stopped_one_goes_on(quick, spine, spine_root, tmp_path):
    reference, run = tmp_path / "reference", tmp_path / "run"
    list(train_folds(spine, quick, reference, device=CPU, threads=1))
    events = train_folds(spine, quick, run, device=CPU, threads=1)
    for event in events:
        if isinstance(event, RunStarted) and event.run == fold_folder(run, 1):
            break
    events.close()
    # Claimed, but killed before the first checkpoint.
    (fold_folder(run, 1) / "last.pt").unlink()
    shutil.rmtree(fold_folder(run, 2), ignore_errors=True)
    resumed = list(train_folds(Cache(spine_root), quick, run, resume=True, device=CPU, threads=1))
    trained = [event for event in resumed if isinstance(event, EpochFinished)]
    assert len(trained) == 2, "folds 1 and 2"
    assert (run / "oof.parquet").read_bytes() == (reference / "oof.parquet").read_bytes()
