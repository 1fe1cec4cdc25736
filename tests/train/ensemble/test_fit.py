"""Blends of synthetic out-of-fold tables: honest scores, useless members, absent ones."""

import json

import numpy as np
import pytest

from lumbar.cache.errors import FormatError, InputError, MissingError
from lumbar.cache.names import GROUP_CELLS, SHOWN_CONDITIONS, SeriesType
from lumbar.train.ensemble import fit as blend_fit
from lumbar.train.ensemble.blend import (
    Blend,
    BlendFile,
    MemberFile,
    PriorFile,
    read_blend,
    weighted_mean,
    with_prior,
    write_blend,
)
from lumbar.train.ensemble.combine import EnsembleMember, combine
from lumbar.train.ensemble.fit import fit_blend
from lumbar.train.evaluation.baselines import weighted_prior, with_floor
from lumbar.train.evaluation.metric import score
from lumbar.train.evaluation.predictions import Predictions

N = 240
STUDY_IDS = [f"{i:05}" for i in range(N)]
SPACES = ("probability", "log")
EVERY = np.ones((N, 25), bool)


@pytest.fixture(scope="module")
def severities():
    rng = np.random.default_rng(4)
    grades = rng.choice(np.array([0, 1, 2], np.int8), (N, 25), p=[0.7, 0.2, 0.1])
    grades[rng.random((N, 25)) < 0.03] = -1
    return grades


def as_member(probabilities, name, *, of_studies=False, trained=None):
    """Return predictions of the first studies as a member; NaN where there is none."""
    return EnsembleMember(
        name=name,
        of_studies=of_studies,
        trained=np.ones(25, bool) if trained is None else trained,
        predictions=Predictions(tuple(ids(len(probabilities))), probabilities),
        n_models=(~np.isnan(probabilities).any(axis=2)).astype(np.int64),
    )


def ids(n):
    return [f"{i:05}" for i in range(n)]


def member(severities, seed, skill, *, cells=range(25), absent=()):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([1.5, 1.5, 1.5], severities.shape)
    probabilities += skill * (severities[..., None] == np.arange(3))
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    trained = np.isin(np.arange(25), list(cells))
    probabilities[:, ~trained] = np.nan
    probabilities[list(absent)] = np.nan
    return as_member(probabilities, f"m{seed}", trained=trained)


def fit(members, severities, own=EVERY, **more):
    return fit_blend(members, own, severities, **more)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("skills", [(1.0, 1.0), (1.0, 0.3, 0.6), (0.8, 0.0), (2.0, 1.9, 0.0, 0.0)])
def test_a_blend_is_not_worse_than_its_best_member_beyond_the_interval(space, skills, severities):
    got = fit([member(severities, s, k) for s, k in enumerate(skills)], severities, space=space)
    assert got.against_best["total"].low <= 0
    assert got.score.total <= got.members[got.best].total + 0.005
    assert skills[got.best] == max(skills)


def test_members_that_complement_each_other_gain(severities):
    got = fit([member(severities, s, 1.0) for s in range(3)], severities)
    assert got.against_best["total"].high < 0
    assert got.score.total < got.members[got.best].total - 0.005


ADVERSARIES = {
    "noise": lambda truth, rng: rng.dirichlet([1, 1, 1], truth.shape),
    "sure of noise": lambda truth, rng: rng.dirichlet([0.02] * 3, truth.shape) + 1e-12,
    "against the truth": lambda truth, _: 1.0 * (truth[..., None] != np.arange(3)),
    "sure of normal": lambda truth, _: np.broadcast_to([1.0, 0, 0], (*truth.shape, 3)).copy(),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_a_useless_member_gets_next_to_no_weight(space, adversary, severities):
    noise = ADVERSARIES[adversary](severities, np.random.default_rng(0))
    useless = as_member(noise / noise.sum(axis=2, keepdims=True), "useless")
    got = fit([member(severities, 1, 2.0), useless], severities, space=space)
    for group, weights in got.weights.items():
        assert weights[1] < 0.03, group
    assert got.against_best["total"].low <= 0
    assert got.score.total <= got.members[0].total + 0.003


@pytest.mark.parametrize("space", SPACES)
def test_the_prior_outweighs_members_that_are_worse_where_the_best_is_absent(space, severities):
    good = member(severities, 1, 2.0)
    probabilities = good.predictions.probabilities.copy()
    probabilities[np.arange(N) % 4 != 0] = np.nan
    noise = ADVERSARIES["noise"](severities, np.random.default_rng(0))
    members = [as_member(probabilities, "seldom"), as_member(noise, "noise")]
    got = fit(members, severities, space=space)
    assert score(noise, severities).total > got.members[got.best].total + 0.2
    assert got.against_best["total"].low <= 0
    assert got.score.total <= got.members[0].total + 0.005


def test_what_the_prior_outweighs_gets_the_prior_and_its_reason(severities):
    members = [member(severities, s, 1.0, absent=range(100)) for s in range(2)]
    weights = np.zeros((3, 25))
    weights[2, :5], weights[0, 5:] = 1, 1
    blend = Blend(space="probability", weights=weights, losses=np.ones((3, 25)))
    prior = np.tile([0.5, 0.3, 0.2], (N, 25, 1))
    got = combine(members, EVERY, prior, blend=blend)
    combined, first = got.predictions.probabilities, members[0].predictions.probabilities
    assert np.array_equal(combined[100:, :5], prior[100:, :5])
    assert combined[100:, 5:] == pytest.approx(first[100:, 5:])
    assert got.model_names[99] == ["prior"] * 25
    assert got.model_names[100] == ["prior"] * 5 + ["m0"] * 20
    assert got.reasons[99] == ["nothing_to_look_at"] * 25
    assert got.reasons[100] == ["prior_has_the_weight"] * 5 + ["own_series"] * 20
    assert got.n_models[100].tolist() == [0] * 5 + [1] * 20


RATES = np.array([0.7, 0.2, 0.1])


def model_of(truth, rng, evidence):
    """Predict as a calibrated model: the weighted rates, changed by noisy evidence of the truth."""
    seen = rng.standard_normal((*truth.shape, 3)) + evidence * np.eye(3)[truth]
    return RATES * (1, 2, 4) * np.exp(evidence * seen)


def studies_and_members(n, seed, *kinds):
    """Labels of ``n`` studies, and members: of models by their evidence, or of an adversary."""
    rng = np.random.default_rng((n, seed))
    truth = rng.choice(np.array([0, 1, 2], np.int8), (n, 25), p=RATES)
    every = [
        ADVERSARIES[kind](truth, rng) if isinstance(kind, str) else model_of(truth, rng, kind)
        for kind in kinds
    ]
    if n > 1000:  # a group less to fit
        truth[:, 15:] = -1
    members = [
        as_member(of_one / of_one.sum(axis=2, keepdims=True), f"m{i}")
        for i, of_one in enumerate(every)
    ]
    return truth, members


def fit_few(truth, members):
    return fit_blend(members, np.ones(truth.shape, bool), truth)


CROWDS = [*((12, seed) for seed in range(5)), *((60, seed) for seed in range(5)), (2000, 0)]


@pytest.mark.parametrize(("n", "seed"), CROWDS)
def test_members_that_are_better_than_the_prior_keep_their_weight(n, seed):
    """A prior that knew the labels to which weights are fitted took most of it of 12 studies."""
    truth, members = studies_and_members(n, seed, 0.5, 0.4)
    got = fit_few(truth, members)
    labelled = [group for group, weights in got.weights.items() if weights.any()]
    assert all((got.losses[group][:2] < got.losses[group][2]).all() for group in labelled)
    of_prior = np.mean([got.weights[group][2] for group in labelled])
    assert of_prior < (0.25 if n == 12 else 0.005)
    assert got.score.total < got.mean.total + 0.03
    assert got.score.total < got.training_prior.total - 0.05


@pytest.mark.parametrize(("n", "seed"), [(12, 0), (12, 1), (60, 0), (2000, 0)])
def test_a_member_that_is_worse_than_the_prior_loses_its_weight(n, seed):
    truth, members = studies_and_members(n, seed, 0.5, "against the truth", "against the truth")
    for weights in fit_few(truth, members[:2]).weights.values():
        assert weights[1] == 0
    of_prior = fit_few(truth, members[1:])
    assert all(weights[:2].sum() == 0 for weights in of_prior.weights.values())
    assert of_prior.score.total == pytest.approx(of_prior.training_prior.total, rel=1e-12)
    assert "total" in of_prior.by_prior.blend


def test_every_row_beside_the_blend_has_its_prior_of_the_other_parts(severities):
    """The blend, the mean and each member alone fill empty cells with one prior, by study."""
    members = [
        member(severities, 0, 1.0, absent=range(100), cells=range(15)),
        member(severities, 1, 0.5, absent=range(50), cells=range(15)),
    ]
    got = fit(members, severities)
    part_of = blend_fit.folds(STUDY_IDS, severities, n_folds=5, seed=0)
    parts = np.array([part_of[s] for s in STUDY_IDS])
    prior = np.stack([with_floor(weighted_prior(severities[parts != part])) for part in parts])
    assert np.array_equal(got.predictions.training_prior, prior)
    assert got.training_prior == score(prior, severities)
    for found, one in zip(got.members, members, strict=True):
        alone = np.where(one.is_predicted[..., None], one.predictions.probabilities, prior)
        assert found == score(alone, severities)
    anyone = members[1].is_predicted
    assert np.array_equal(got.predictions.probabilities[~anyone], prior[~anyone])
    assert np.array_equal(got.predictions.by_prior, ~anyone)
    every = ["spinal", "foraminal", "subarticular", "any_severe_spinal", "total"]
    assert got.by_prior.blend == got.by_prior.mean == every
    assert got.by_prior.members == [every, every]
    full = fit([member(severities, s, 1.0) for s in range(2)], severities)
    assert full.by_prior == blend_fit.PartsByPrior([], [], [[], []])


def test_what_the_weights_give_to_the_prior_alone_is_the_priors(severities):
    """A condition whose only member is worse than the prior has no model in the blend."""
    against = ADVERSARIES["against the truth"](severities, np.random.default_rng(0))
    members = [
        member(severities, 0, 2.0, cells=range(15)),
        as_member(against, "against"),
    ]
    got = fit(members, severities)
    assert got.weights["subarticular"].tolist() == [0, 0, 1]
    assert got.by_prior.blend == ["subarticular", "total"]
    assert got.by_prior.mean == []


def test_the_score_is_of_studies_that_the_weights_were_not_fitted_to():
    """Many members that know nothing: fitted to the studies they seem to, cross-fitted not."""
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, (40, 25)).astype(np.int8)
    members = [member(truth, s, 0.0) for s in range(12)]
    got = fit_blend(members, np.ones((40, 25), bool), truth)
    assert got.fitted_score.total < got.score.total


def test_fitting_a_part_never_sees_its_labels(severities):
    """Other labels of one part change the predictions of the other parts, not its own."""
    members = [member(severities, s, 1.0) for s in range(3)]
    table = blend_fit._Table(
        STUDY_IDS,
        np.stack([one.predictions.probabilities for one in members]),
        np.stack([one.is_predicted for one in members]),
        severities,
    )
    here = np.arange(N) % 5 == 0
    before = blend_fit._predict_part(table, here, "probability").probabilities
    lied = severities.copy()
    lied[here] = 2
    other = blend_fit._Table(STUDY_IDS, table.probabilities, table.eligible, lied)
    assert np.array_equal(blend_fit._predict_part(other, here, "probability").probabilities, before)


@pytest.mark.parametrize("space", SPACES)
def test_members_of_different_conditions_each_have_all_the_weight_of_theirs(space, severities):
    cells = {
        t: [c * 5 + i for c in shown for i in range(5)] for t, shown in SHOWN_CONDITIONS.items()
    }
    kinds = (SeriesType.SAGITTAL_T2, SeriesType.SAGITTAL_T1, SeriesType.AXIAL_T2)
    members = [member(severities, s, 1.0, cells=cells[kind]) for s, kind in enumerate(kinds)]
    got = fit(members, severities, space=space)
    assert [got.weights[group].tolist() for group in GROUP_CELLS] == np.eye(3, 4).tolist()
    assert [np.isfinite(got.losses[group]).sum() for group in GROUP_CELLS] == [2, 2, 2]
    whole = np.nanmax([one.predictions.probabilities for one in members], axis=0)
    assert got.score.total == pytest.approx(score(whole, severities).total, rel=1e-9)


@pytest.mark.parametrize("space", SPACES)
def test_where_a_member_is_absent_the_others_have_its_weight(space, severities):
    members = [
        member(severities, 0, 1.0, absent=range(100)),
        member(severities, 1, 1.0),
        member(severities, 2, 0.0),
    ]
    got = fit(members, severities, space=space)
    prior = np.full((N, 25, 3), 1 / 3)
    probabilities = np.stack([one.predictions.probabilities for one in members])
    eligible = np.stack([one.is_predicted for one in members])
    shares = got.blend().shares(with_prior(probabilities, eligible, prior)[1])
    assert shares.sum(axis=0) == pytest.approx(np.ones((N, 25)))
    assert (shares[0, :100] == 0).all()
    assert shares[1, :100].min() > 0.9
    assert shares[0, 100:].min() > 0.05
    assert np.allclose(shares[[0, 1], 100:].sum(axis=0), 1, atol=0.05)


def test_where_all_the_weight_is_absent_the_best_of_the_others_is_taken():
    weights = np.zeros((3, 25))
    weights[0] = 1
    blend = Blend(space="probability", weights=weights, losses=np.tile([[1], [3], [2.0]], 25))
    eligible = np.zeros((3, 4, 25), bool)
    eligible[:, 0] = True
    eligible[1:, 1] = True
    eligible[1, 2] = True
    assert blend.shares(eligible)[:, :, 0].T.tolist() == [
        [1, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_the_weighted_mean_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], (2, 3, 25))
    probabilities[0, 1] = np.nan
    shares = np.zeros((2, 3, 25))
    shares[:, 0], shares[1, 1] = np.array([[0.25], [0.75]]), 1
    plain = weighted_mean(probabilities, shares, space="probability")
    logs = weighted_mean(probabilities, shares, space="log")
    assert np.allclose(plain[0], 0.25 * probabilities[0, 0] + 0.75 * probabilities[1, 0])
    geometric = probabilities[0, 0] ** 0.25 * probabilities[1, 0] ** 0.75
    assert np.allclose(logs[0], geometric / geometric.sum(axis=1, keepdims=True))
    for mixed in (plain, logs):
        assert np.allclose(mixed[1], probabilities[1, 1])
        assert np.isnan(mixed[2]).all()


def test_a_blend_of_one_is_refused_and_so_is_one_of_nothing(severities):
    with pytest.raises(InputError, match="two or more"):
        fit([member(severities, 0, 1.0)], severities)
    few = [member(severities[:4], s, 1.0) for s in range(2)]
    with pytest.raises(InputError, match="got 4 that were held out"):
        fit_blend(few, EVERY[:4], severities[:4])
    with pytest.raises(InputError, match="no labelled cell"):
        fit([member(severities, s, 1.0) for s in range(2)], np.full_like(severities, -1))


def described(name, weight, **more):
    weights = dict.fromkeys(GROUP_CELLS, weight)
    return {"name": name, "runs": ("../a",), "weights": weights, "losses": weights} | more


OF_PRIOR = PriorFile(
    weights=dict.fromkeys(GROUP_CELLS, 0.25), losses=dict.fromkeys(GROUP_CELLS, 0.9)
)


def test_a_blend_comes_back_from_its_file(tmp_path):
    members = (MemberFile(**described("a", 0.25)), MemberFile(**described("b", 0.5)))
    blend = BlendFile(space="log", members=members, prior=OF_PRIOR)
    write_blend(tmp_path / "new" / "blend.json", blend)
    assert read_blend(tmp_path / "new") == read_blend(tmp_path / "new" / "blend.json") == blend
    assert blend.blend().weights[:, 7].tolist() == [0.25, 0.5, 0.25]
    assert blend.runs(tmp_path / "new")[0] == [tmp_path / "new" / "../a"]


def test_a_group_without_a_model_has_no_loss(tmp_path):
    weights = {"spinal": 0.75, "foraminal": 0.0, "subarticular": 0.0}
    losses = {"spinal": 0.6, "foraminal": None, "subarticular": None}
    members = (MemberFile(name="a", runs=("../a",), weights=weights, losses=losses),)
    prior = PriorFile(weights=weights | {"spinal": 0.25}, losses=losses)
    write_blend(tmp_path / "blend.json", BlendFile(space="log", members=members, prior=prior))
    blend = read_blend(tmp_path).blend()
    assert blend.weights[:, 0].tolist() == [0.75, 0.25]
    assert np.isinf(blend.losses[:, 5:]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(blend_version=2), "blend_version"),
        (lambda d: d["members"][0]["weights"].update(spinal=0.9), "weights of spinal"),
        (lambda d: d["members"][0]["weights"].update(spinal=-0.1), "weights.spinal"),
        (lambda d: d["members"][0]["weights"].pop("spinal"), "the groups spinal"),
        (lambda d: d.update(more=1), "more"),
    ],
)
def test_a_blend_of_another_kind_is_refused(tmp_path, change, said):
    members = (MemberFile(**described("a", 0.25)), MemberFile(**described("b", 0.5)))
    document = json.loads(BlendFile(space="log", members=members, prior=OF_PRIOR).model_dump_json())
    change(document)
    (tmp_path / "blend.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=said):
        read_blend(tmp_path)


def test_a_blend_that_is_none_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no such blend"):
        read_blend(tmp_path / "blend.json")
    (tmp_path / "blend.json").write_text("{")
    with pytest.raises(FormatError, match="cannot be read"):
        read_blend(tmp_path)
