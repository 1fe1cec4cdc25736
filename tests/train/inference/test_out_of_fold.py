"""Out-of-fold predictions of runs: joined as an ensemble, grouped to members, checked."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.labels import severities_of
from lumbar.cache.names import SeriesType
from lumbar.train.ensemble.blend import read_blend
from lumbar.train.evaluation.baselines import uniform, weighted_prior, with_floor
from lumbar.train.evaluation.metric import score
from lumbar.train.evaluation.predictions import Predictions, write_oof
from lumbar.train.evaluation.submission import read_submission
from lumbar.train.inference.blend_runs import blend_runs
from lumbar.train.inference.out_of_fold import find_members, join_runs
from lumbar.train.inference.predict import load_models
from lumbar.train.plan.folds import folds
from lumbar.train.run.checkpoint import BEST, LAST, ModelBundle, save_checkpoint
from lumbar.train.run.config import read_config
from lumbar.train.run.folder import CONFIG, OOF
from lumbar.train.run.network import build_model
from lumbar.train.run.predictions import read_run

FOLDS = 3


def write_table(run, by_study):
    """Write a run's predictions: study -> 25 x 3."""
    write_oof(run / OOF, Predictions(tuple(by_study), np.stack(list(by_study.values()))))


@pytest.fixture
def truth(spine):
    """Study -> severities, of those of which anything is known."""
    severities = severities_of(spine.labels)
    known = (severities >= 0).any(axis=1)
    return dict(zip(spine.labels["study_id"].filter(known), severities[known], strict=True))


@pytest.fixture
def make_run(tmp_path, small_config, truth):
    """A function that writes what `lumbar train` leaves of a fold: configuration and predictions.

    ``skill`` is how much is known of the truth in the cells that the run was trained on; elsewhere
    stands the prior.
    """
    severities = np.stack(list(truth.values()))
    fold_of = folds(list(truth), severities, n_folds=FOLDS, seed=0)
    prior = with_floor(weighted_prior(severities))

    def make(name, *overrides, fold=0, skill=1.0, series=SeriesType.SAGITTAL_T2, studies=None):
        config = small_config(*overrides, f"split.fold={fold}", series=series)
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / CONFIG).write_text(config.to_toml())
        rng = np.random.default_rng((fold, len(name)))
        words = {}
        for study_id in studies or [s for s in truth if fold_of[s] == fold]:
            said = rng.dirichlet([1.5, 1.5, 1.5], 25)
            said += skill * (truth[study_id][:, None] == np.arange(3))
            words[study_id] = prior.copy()
            cells = range(25) if config.loss.conditions == "all" else range(5)
            words[study_id][cells] = (said / said.sum(axis=1, keepdims=True))[cells]
        write_table(run, words)
        return run

    return make


def test_folds_complete_each_other(make_run, spine, truth):
    runs = [make_run(f"t2-{fold}", fold=fold) for fold in range(FOLDS)]
    joined = join_runs(runs, spine)
    assert joined.study_ids == tuple(sorted(truth))
    whole = np.stack([truth[s] for s in joined.study_ids])
    assert score(joined.probabilities, whole).spinal < 0.6


def test_runs_of_one_study_speak_as_an_ensemble_and_priors_are_not_mixed_in(make_run, spine):
    canal = make_run("canal")
    both = make_run("both", "loss.conditions=all", skill=0.5)
    joined = join_runs([canal, both], spine)
    (one,), (other,) = ([join_runs([run], spine)] for run in (canal, both))
    assert joined.study_ids == one.study_ids == other.study_ids
    mean = (one.probabilities + other.probabilities) / 2
    assert np.allclose(joined.probabilities[:, :5], mean[:, :5])
    # The first has its prior there, and is not asked.
    assert np.allclose(joined.probabilities[:, 5:], other.probabilities[:, 5:])
    assert not np.allclose(one.probabilities[:, 5:], other.probabilities[:, 5:])


def test_a_run_tells_its_training_prior_and_the_conditions_without_a_model(make_run, spine):
    run = make_run("t2")
    other = make_run("both", "loss.conditions=all")
    assert read_run(run).training_prior is None, "its checkpoints are gone"
    assert not read_run(other).by_prior.any()
    config = read_config(run / CONFIG)
    prior = with_floor(weighted_prior(severities_of(spine.labels)[:7]))
    bundle = ModelBundle(config, build_model(config), prior, spine.voxel_config)
    save_checkpoint(run / LAST, bundle, trainer_state=None)
    got = read_run(run)
    assert (got.training_prior == prior).all()
    assert got.by_prior.tolist() == [[False] * 5 + [True] * 20] * len(got.study_ids)
    assert join_runs([run, other], spine).training_prior is None, "that of one is not known"
    (saved := run / LAST).rename(run / BEST)
    assert not saved.exists()
    bundle = ModelBundle(config, bundle.model, uniform(), spine.voxel_config)
    save_checkpoint(other / BEST, bundle, trainer_state=None)
    both = join_runs([run, other], spine)
    assert np.allclose(both.training_prior, (prior + uniform()) / 2)
    assert not both.by_prior.any(), "one of the runs has a model of every condition"
    assert join_runs([run, run], spine).by_prior[:, 5:].all()


def test_the_folds_of_a_configuration_are_one_member(make_run, spine, truth):
    runs = [make_run(f"a-{fold}", fold=fold) for fold in range(FOLDS)]
    runs += [make_run("b-1", "optim.lr=1e-3", fold=1)]
    members, study_ids = find_members(runs, spine)
    assert [(m.name, len(m.held_out)) for m in members] == [("a-0", FOLDS), ("b-1", 1)]
    assert study_ids == sorted(truth)
    first, second = (member.member(study_ids) for member in members)
    assert first.n_models[:, 0].tolist() == [1] * len(study_ids)
    assert 0 < second.n_models[:, 0].sum() < len(study_ids)
    assert first.n_models[:, 5:].sum() == 0


def test_a_folder_of_all_folds_stands_for_them(make_run, spine, tmp_path, truth):
    runs = [make_run(f"every/fold-{fold}", fold=fold) for fold in range(FOLDS)]
    every = tmp_path / "every"
    (every / CONFIG).write_text((runs[0] / CONFIG).read_text())
    write_table(every, dict.fromkeys(truth, uniform()))
    (member, other), study_ids = find_members([every, make_run("b", "seed=1")], spine)
    assert (member.name, other.name) == ("every", "b")
    assert [held_out.run for held_out in member.held_out] == runs
    assert study_ids == sorted(truth)

    config = read_config(every / CONFIG)
    for fold, run in enumerate(runs):
        bundle = ModelBundle(config, build_model(config), uniform() + fold, spine.voxel_config)
        save_checkpoint(run / BEST, bundle, trainer_state=None)
    models = load_models([every, runs[1]])
    assert [round(model.prior[0, 0] - 1 / 3) for model in models] == [0, 1, 2, 1]


def test_studies_that_were_not_held_out_are_refused(make_run, spine, truth):
    run = make_run("cheat", fold=0, studies=list(truth))
    with pytest.raises(InputError, match=r"did not hold out: .*cheat/oof.parquet; got 24 of 36"):
        find_members([run, make_run("b", "seed=1")], spine)
    test = make_run("test", fold=0, studies=list(truth)[:1])
    moved = {"elsewhere": np.full((25, 3), 1 / 3)}
    write_table(test, moved)
    with pytest.raises(InputError, match="got 1 of 1: elsewhere"):
        find_members([test], spine)


def test_the_same_fold_twice_is_refused(make_run, spine):
    with pytest.raises(InputError, match="two runs of one configuration held out the same study"):
        find_members([make_run("a"), make_run("b")], spine)


def test_a_folder_that_is_no_run_says_so(tmp_path, spine):
    with pytest.raises(MissingError, match="holds no run"):
        join_runs([tmp_path], spine)


def test_a_blend_of_runs_is_fitted(make_run, spine, truth):
    good = [make_run(f"good-{f}", fold=f, skill=1.5) for f in range(FOLDS)]
    poor = [make_run(f"bad--{f}", "seed=1", fold=f, skill=0.0) for f in range(FOLDS)]
    got = blend_runs([*good, *poor], spine, space="probability", path_of=lambda run: run.name)
    assert [member.name for member in got.members] == ["good-0", "bad--0"]
    assert got.file.members[0].weights["spinal"] > 0.9
    assert got.file.members[0].weights["foraminal"] == 0
    assert got.file.members[0].losses["foraminal"] is None
    assert got.file.members[1].runs == ("bad--0", "bad--1", "bad--2")
    assert got.fit.predictions.study_ids == tuple(sorted(truth))
    whole = np.stack([truth[s] for s in sorted(truth)])
    assert got.fit.score.total == pytest.approx(
        score(got.fit.predictions.probabilities, whole).total
    )
    untrained = ["foraminal", "subarticular", "total"]
    by_prior = got.fit.by_prior
    assert by_prior.blend == by_prior.mean == untrained
    assert by_prior.members == [untrained, untrained]
    assert got.fit.score.spinal <= got.fit.members[0].spinal + 0.03


@pytest.mark.usefixtures("uncompiled_reader")
def test_the_way_from_runs_to_a_submission_of_their_blend(
    tmp_path, command_line, make_run, spine, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    runs = [
        make_run(f"x/{n}{f}", *o, fold=f) for n, *o in (("a",), ("b", "seed=1")) for f in (0, 1)
    ]
    for run in runs:
        config = read_config(run / CONFIG)
        bundle = ModelBundle(config, build_model(config), uniform(), spine.voxel_config)
        save_checkpoint(run / BEST, bundle, trainer_state=None)
    blended = command_line("blend", *runs, "--cache", spine.root, "--out", "y/blend")
    assert blended.status == 0, blended
    assert blended.out.splitlines()[-2] == "blend: y/blend/blend.json"
    for text in ("a0 alone", "b0 alone", "cross-fitted", "plain mean", "95 % interval"):
        assert text in blended.out
    assert read_blend(tmp_path / "y/blend").members[1].runs == ("../../x/b0", "../../x/b1")

    line = ("evaluate", "y/blend/oof.parquet", "--cache", spine.root, "--json")
    found = json.loads(command_line(*line, "--against", runs[0], "--against", runs[1]).out)
    assert f"{found['score']['total']:.4f}" in blended.out
    # Both folds of the first member, beside the blend on the same studies.
    first = json.loads(command_line("evaluate", *runs[:2], "--cache", spine.root, "--json").out)
    # Of the blend its table tells the training prior and where it stands in, of runs their folders.
    assert f"{found['training_prior']['total']:.4f}" in blended.out
    assert first["training_prior"] == pytest.approx(first["uniform"])
    for document in (found, first):
        assert document["parts_by_prior"] == ["foraminal", "subarticular", "total"]
        assert [auc is None for auc in document["auc"].values()] == [False] + [True] * 4
    assert "* contains cells without a model" in blended.out
    shown = command_line(*line[:-1], "--against", runs[0]).out
    for text in (
        "* left neural foraminal narrowing: no model, the training prior stands in",
        "narrowing - (no model)",
        "total*",
        "training prior",
        "best constant",
    ):
        assert text in " ".join(shown.split())
    assert found["comparison"]["against"] == pytest.approx(first["score"])
    assert found["comparison"]["n_studies"] == first["n_studies"] == 24

    monkeypatch.chdir(tmp_path / "x")  # paths in the blend are from its folder
    predicted = command_line(
        *("predict", "--blend", "../y/blend", "--cache", spine.root, "--tta"),
        *("--device", "cpu", "--threads", 1, "--out", "submission.csv"),
    )
    assert predicted.status == 0, predicted
    rows = pl.read_csv(tmp_path / "x" / "submission_served_by.csv")
    spinal = rows.filter(pl.col("row_id") == "s01_spinal_canal_stenosis_l4_l5").row(0)
    assert spinal == ("s01_spinal_canal_stenosis_l4_l5", "sagittal_t2", 4, "own_series")
    foraminal = rows.filter(pl.col("row_id") == "s01_left_neural_foraminal_narrowing_l4_l5").row(0)
    assert foraminal[1:] == ("prior", 0, "no_model")
    assert rows.height == len(read_submission(Path("submission.csv")).study_ids) * 25
