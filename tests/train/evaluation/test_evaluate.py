import json

import numpy as np
import polars as pl
import pytest

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.format import LABELS_TABLE
from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.labels import label_table
from lumbar.cache.names import CELLS, CONDITIONS, LEVELS, SEVERITY_TEXTS, TARGET_COLUMNS
from lumbar.cache.store import Cache
from lumbar.cache.tables import write_table
from lumbar.train.evaluation.baselines import for_studies, uniform, weighted_prior, with_floor
from lumbar.train.evaluation.evaluate import check_complete, compare, evaluate
from lumbar.train.evaluation.metric import PARTS, score
from lumbar.train.evaluation.predictions import Predictions, join, read_oof
from lumbar.train.evaluation.predictions import write_oof as write_predictions
from lumbar.train.evaluation.submission import read_submission, write_submission

STUDY_IDS = [f"{i}" for i in range(12)]


@pytest.fixture
def severities():
    rng = np.random.default_rng(8)
    return rng.choice(np.array([-1, 0, 1, 2], np.int8), (12, 25), p=[0.05, 0.6, 0.2, 0.15])


@pytest.fixture
def probabilities(severities):
    """Better than a guess: some of the weight is on the truth."""
    rng = np.random.default_rng(9)
    rows = rng.dirichlet([1, 1, 1], severities.shape)
    rows += 0.5 * (severities[:, :, None] == np.arange(3))
    return rows / rows.sum(axis=2, keepdims=True)


@pytest.fixture
def labels_csv(tmp_path, severities):
    path = tmp_path / "train.csv"
    texts = [["" if s < 0 else SEVERITY_TEXTS[s] for s in row] for row in severities]
    rows = [[study_id, *row] for study_id, row in zip(STUDY_IDS, texts, strict=True)]
    path.write_text("\n".join(",".join(row) for row in [["study_id", *CELLS], *rows]))
    return path


@pytest.fixture
def cache(tiny_cache, severities):
    write_table(tiny_cache, LABELS_TABLE, label_table(STUDY_IDS, severities))
    return Cache(tiny_cache)


def evaluated(probabilities, severities, **more):
    """Evaluate arrays, study by study."""
    study_ids = [f"{row:02}" for row in range(len(severities))]
    predictions = Predictions(tuple(study_ids), probabilities.astype(np.float64), **more)
    return evaluate(predictions, label_table(study_ids, severities), where="a test")


def evaluate_oof(path, cache):
    return evaluate(read_oof(path), cache.labels, where=path)


def write_oof(path, study_ids, probabilities):
    flat = probabilities.reshape(-1, 75).astype(np.float32)
    columns = {name: flat[:, i] for i, name in enumerate(TARGET_COLUMNS)}
    pl.DataFrame({"study_id": study_ids} | columns).write_parquet(path)
    return path


def test_a_submission_is_scored_beside_its_baselines(
    tmp_path, labels_csv, severities, probabilities
):
    # The submission has a study without labels, and its studies in another order.
    write_submission(
        tmp_path / "s.csv",
        Predictions(
            (*STUDY_IDS[::-1], "99"),
            np.concatenate([probabilities[::-1], np.ones((1, 25, 3))]),
        ),
    )
    submission = read_submission(tmp_path / "s.csv")
    labels = read_label_csv(labels_csv)
    check_complete(submission, labels, where=tmp_path / "s.csv")
    got = evaluate(submission, labels, where="s.csv")
    assert got.score.total == pytest.approx(score(probabilities, severities).total, rel=1e-12)
    constant = weighted_prior(severities)
    for baseline, prior in ((got.uniform, uniform()), (got.best_constant, constant)):
        expected = score(for_studies(prior, 12), severities)
        assert baseline.total == pytest.approx(expected.total, rel=1e-12)
    assert got.score.total < got.best_constant.total < got.uniform.total
    assert got.training_prior is None, "a file tells no training studies"
    assert {cell.training_prior_loss for cell in got.cells} == {None}
    assert (got.n_studies, got.n_unlabelled) == (12, 1)
    assert got.n_cells == (severities >= 0).sum() == sum(got.severities.values())
    assert got.severities["severe"] == (severities == 2).sum()


def test_the_training_prior_is_that_of_each_study_and_not_of_the_scored_labels(
    cache, severities, probabilities
):
    priors = np.random.default_rng(3).dirichlet([3, 2, 2], (12, 25))
    predicted = Predictions(tuple(STUDY_IDS[::-1]), probabilities[::-1], priors[::-1])
    got = evaluate(predicted, cache.labels, where="a run")
    by_text = sorted(range(12), key=STUDY_IDS.__getitem__)
    assert got.training_prior == score(priors[by_text], severities[by_text])
    constant = for_studies(weighted_prior(severities), 12)
    assert got.best_constant == score(constant, severities[by_text])
    assert got.training_prior.total > got.best_constant.total


@pytest.fixture
def half(severities):
    """Cells by the prior: the foramina of all studies, the left recess of half of them."""
    by_prior = np.zeros((12, 25), bool)
    by_prior[:, 5:15], by_prior[:6, 15:20] = True, True
    return by_prior


def test_statistics_are_of_the_model_alone_and_scores_with_cells_of_the_prior_are_marked(
    severities, probabilities, half
):
    """What cells of the prior hold changes the score, and no statistic of the model."""
    prior = for_studies(with_floor(weighted_prior(severities[::-1])), 12)
    shown = np.where(half[..., None], prior, probabilities)
    swapped = np.where(half[..., None], np.eye(3)[np.maximum(severities, 0)] + 0.01, probabilities)
    got, other = (
        evaluated(p, severities, training_prior=prior, by_prior=half) for p in (shown, swapped)
    )
    assert got.parts_by_prior == ["foraminal", "subarticular", "total"]
    assert got.score.total > other.score.total + 0.1
    assert (got.auc, got.reliability, got.confusion) == (
        other.auc,
        other.reliability,
        other.confusion,
    )
    assert [cell.auc for cell in got.cells] == [cell.auc for cell in other.cells]
    assert [got.auc[name] is None for name in CONDITIONS] == [False, True, True, False, False]
    assert np.sum(got.confusion["foraminal"]) == 0
    assert got.reliability["foraminal"] == {"normal_mild": [], "moderate": [], "severe": []}
    assert (
        np.sum(got.confusion["subarticular"])
        == (severities[:, 15:] >= 0).sum() - (severities[:6, 15:20] >= 0).sum()
    )
    counted = np.array([cell.by_prior for cell in got.cells])
    assert counted.tolist() == (half & (severities >= 0)).sum(axis=0).tolist()
    # A model of every condition is what it was: nothing is marked, everything is counted.
    plain, full = evaluated(shown, severities), evaluated(shown, severities, by_prior=half & False)
    assert plain == full
    assert plain.parts_by_prior == []
    assert plain.score == got.score
    assert None not in plain.auc.values()


def test_a_comparison_marks_cells_of_the_prior_on_either_side(cache, probabilities, half):
    model = Predictions(tuple(STUDY_IDS), probabilities)
    other = Predictions(tuple(STUDY_IDS), probabilities[::-1], by_prior=half)
    marked = ["foraminal", "subarticular", "total"]
    for ours, theirs in ((model, other), (other, model)):
        assert compare(ours, theirs, cache.labels, where="x").parts_by_prior == marked
    assert compare(model, model, cache.labels, where="x").parts_by_prior == []


def test_a_table_of_predictions_keeps_its_training_priors_and_their_cells(
    tmp_path, probabilities, half
):
    priors = np.random.default_rng(3).dirichlet([3, 2, 2], (12, 25))
    path = tmp_path / "oof.parquet"
    write_predictions(path, Predictions(tuple(STUDY_IDS), probabilities, priors, half))
    got = read_oof(path)
    assert list(got.study_ids) == sorted(STUDY_IDS)
    back = got.of(STUDY_IDS)
    assert np.array_equal(back.probabilities, probabilities.astype(np.float32))
    assert np.array_equal(back.training_prior, priors)
    assert np.array_equal(back.by_prior, half)
    changed = pl.read_parquet(path).with_columns(by_prior=pl.lit([True], pl.List(pl.Boolean)))
    changed.write_parquet(path)
    with pytest.raises(InputError, match=r"by_prior: List\(Boolean\); expected lists of 25"):
        read_oof(path)


def test_missing_studies_are_counted_and_named(tmp_path, labels_csv, probabilities):
    write_submission(tmp_path / "s.csv", Predictions(tuple(STUDY_IDS[5:]), probabilities[5:]))
    with pytest.raises(InputError) as caught:
        check_complete(
            read_submission(tmp_path / "s.csv"), read_label_csv(labels_csv), where=tmp_path
        )
    # The order of ids is that of text: 0, 1, 10, 11, 2, ...
    assert "5 of 12 missing: 0, 1, 2, ..." in str(caught.value)


def test_out_of_fold_predictions_are_scored_by_study(tmp_path, cache, severities, probabilities):
    order = [7, 2, 11, 4, 5]
    study_ids = [*(STUDY_IDS[i] for i in order), "unlabelled"]
    rows = np.concatenate([probabilities[order], np.full((1, 25, 3), np.nan)])
    got = evaluate_oof(write_oof(tmp_path / "oof.parquet", study_ids, rows), cache)
    expected = evaluated(probabilities[order].astype(np.float32), severities[order])
    assert got.n_studies == 5
    assert got.n_unlabelled == 1
    assert got.score.total == pytest.approx(expected.score.total, rel=1e-12)
    assert got.best_constant.total == pytest.approx(expected.best_constant.total, rel=1e-12)


def test_out_of_fold_files_that_do_not_fit(tmp_path, cache, probabilities):
    path = tmp_path / "oof.parquet"
    with pytest.raises(MissingError, match="no such file"):
        evaluate_oof(path, cache)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_oof(path, cache)
    with pytest.raises(InputError, match="no predicted study is labelled"):
        evaluate_oof(write_oof(path, ["x"], probabilities[:1]), cache)
    with pytest.raises(InputError, match=r"twice.*got 3"):
        evaluate_oof(write_oof(path, ["3", "3"], probabilities[:2]), cache)
    pl.read_parquet(write_oof(path, ["3"], probabilities[:1])).drop(
        TARGET_COLUMNS[4]
    ).write_parquet(path)
    with pytest.raises(InputError, match=TARGET_COLUMNS[4]):
        evaluate_oof(path, cache)


def test_auc_tells_conditions_apart(severities):
    probabilities = np.full((12, 25, 3), 1 / 3)
    foraminal = slice(5, 10)
    probabilities[:, foraminal] = np.where(
        (severities[:, foraminal] > 0)[:, :, None], (0.1, 0.6, 0.3), (0.8, 0.1, 0.1)
    )
    got = evaluated(probabilities, severities)
    assert got.auc == dict.fromkeys(CONDITIONS, 0.5) | {CONDITIONS[1]: 1.0}


def test_an_evaluation_is_json_of_plain_types(probabilities, severities):
    severities[:, :5] = -1
    got = evaluated(probabilities, severities).to_json()
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert got["score"]["spinal"] is None
    assert got["auc"]["spinal_canal_stenosis"] is None
    assert got["score"]["total"] == pytest.approx(
        (got["score"]["foraminal"] + got["score"]["subarticular"]) / 2
    )


def test_the_table_of_cells_adds_up_to_the_parts(probabilities, severities):
    prior = for_studies(with_floor(weighted_prior(severities[:5])), 12)
    got = evaluated(probabilities, severities, training_prior=prior)
    named = [f"{cell.condition}_{cell.level}" for cell in got.cells]
    assert named == list(CELLS)
    counts = np.array([list(cell.severities.values()) for cell in got.cells])
    assert counts.sum() == got.n_cells
    assert counts[7].tolist() == [(severities[:, 7] == s).sum() for s in range(3)]
    weights = counts @ (1, 2, 4)
    for part, cells in (("spinal", slice(0, 5)), ("foraminal", slice(5, 15))):
        for name, of in (
            ("loss", got.score),
            ("training_prior_loss", got.training_prior),
            ("best_constant_loss", got.best_constant),
        ):
            losses = np.array([getattr(cell, name) for cell in got.cells])
            mean = np.average(losses[cells], weights=weights[cells])
            assert getattr(of, part) == pytest.approx(mean, rel=1e-12)


def test_a_cell_without_labels_has_no_loss(probabilities, severities):
    severities[:, 3] = -1
    cell = evaluated(probabilities, severities).cells[3]
    assert (cell.level, cell.loss, cell.best_constant_loss, cell.auc) == (
        LEVELS[3],
        *[None] * 3,
    )


def test_intervals_hold_the_score(probabilities, severities):
    got = evaluated(probabilities, severities)
    for part in (*PARTS, "total"):
        interval = got.intervals[part]
        assert interval.low < getattr(got.score, part) < interval.high


def test_two_predictions_are_compared_on_the_studies_of_both(cache, severities, probabilities):
    ours = Predictions(tuple(STUDY_IDS[2:]), probabilities[2:])
    worse = np.full((12, 25, 3), 1 / 3)
    theirs = Predictions((*STUDY_IDS[::-1][:6], "unlabelled"), worse[:7])
    got = compare(ours, theirs, cache.labels, where="a file")
    assert got.n_studies == 6
    expected = score(probabilities[6:], severities[6:])
    assert got.score.total == pytest.approx(expected.total, rel=1e-12)
    assert got.difference["spinal"] == pytest.approx(expected.spinal - np.log(3), rel=1e-9)
    assert got.intervals["total"].low < got.difference["total"] < got.intervals["total"].high < 0
    assert json.loads(json.dumps(got.to_json(), allow_nan=False)) == got.to_json()
    with pytest.raises(InputError, match="no predicted study is labelled"):
        compare(ours, Predictions(("x",), worse[:1]), cache.labels, where="a file")


def test_files_of_different_studies_are_joined_and_others_refused(tmp_path, probabilities):
    first = Predictions(("1", "2"), probabilities[:2])
    second = Predictions(("3",), probabilities[2:3])
    joined = join([first, second], [tmp_path / "a", tmp_path / "b"])
    assert joined.study_ids == ("1", "2", "3")
    assert np.array_equal(joined.of(["3", "1"]).probabilities, probabilities[[2, 0]])
    assert joined.training_prior is None
    with pytest.raises(InputError, match=r"b; got study 2, which .*/a has too"):
        join([first, Predictions(("2",), probabilities[1:2])], [tmp_path / "a", tmp_path / "b"])
