import json

import numpy as np
import polars as pl
import pytest

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.format import LABELS_TABLE
from lumbar.cache.labels import label_table
from lumbar.cache.names import CELLS, CONDITIONS, LEVELS, SEVERITY_TEXTS, TARGET_COLUMNS
from lumbar.cache.store import Cache
from lumbar.cache.tables import write_table
from lumbar.train.evaluate import compare, evaluate, evaluate_oof, evaluate_submission
from lumbar.train.metric import PARTS, score
from lumbar.train.predicted import Predicted, join
from lumbar.train.prior import for_studies, uniform, weighted_prior, with_floor
from lumbar.train.submission import write_submission

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
        [*STUDY_IDS[::-1], "99"],
        np.concatenate([probabilities[::-1], np.ones((1, 25, 3))]),
    )
    got = evaluate_submission(tmp_path / "s.csv", labels_csv)
    assert got.score.total == pytest.approx(score(probabilities, severities).total, rel=1e-12)
    for baseline, prior in ((got.uniform, uniform()), (got.prior, weighted_prior(severities))):
        expected = score(for_studies(prior, 12), severities)
        assert baseline.total == pytest.approx(expected.total, rel=1e-12)
    assert got.score.total < got.prior.total < got.uniform.total
    assert (got.n_studies, got.n_unlabelled) == (12, 1)
    assert got.n_cells == (severities >= 0).sum() == sum(got.severities.values())
    assert got.severities["severe"] == (severities == 2).sum()


def test_the_prior_may_come_from_training_labels(tmp_path, labels_csv, severities, probabilities):
    other = tmp_path / "other.csv"
    write_submission(tmp_path / "s.csv", STUDY_IDS, probabilities)
    other.write_text(",".join(["study_id", *CELLS]) + "\n1," + ",".join(["Severe"] * 25) + "\n")
    got = evaluate_submission(tmp_path / "s.csv", labels_csv, training_labels=other)
    training = np.full((1, 25), 2, np.int8)
    expected = score(for_studies(with_floor(weighted_prior(training)), 12), severities)
    assert got.prior.total == pytest.approx(expected.total, rel=1e-12)
    assert got.prior_labels == "the training studies"


def test_missing_studies_are_counted_and_named(tmp_path, labels_csv, probabilities):
    write_submission(tmp_path / "s.csv", STUDY_IDS[5:], probabilities[5:])
    with pytest.raises(InputError) as caught:
        evaluate_submission(tmp_path / "s.csv", labels_csv)
    # The order of ids is that of text: 0, 1, 10, 11, 2, ...
    assert "5 of 12 missing: 0, 1, 2, ..." in str(caught.value)


def test_out_of_fold_predictions_are_scored_by_study(tmp_path, cache, severities, probabilities):
    order = [7, 2, 11, 4, 5]
    study_ids = [*(STUDY_IDS[i] for i in order), "unlabelled"]
    rows = np.concatenate([probabilities[order], np.full((1, 25, 3), np.nan)])
    got = evaluate_oof(write_oof(tmp_path / "oof.parquet", study_ids, rows), cache)
    expected = evaluate(probabilities[order].astype(np.float32), severities[order])
    assert got.n_studies == 5
    assert got.n_unlabelled == 1
    assert got.score.total == pytest.approx(expected.score.total, rel=1e-12)
    assert got.prior.total == pytest.approx(expected.prior.total, rel=1e-12)


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
    got = evaluate(probabilities, severities)
    assert got.auc == dict.fromkeys(CONDITIONS, 0.5) | {CONDITIONS[1]: 1.0}


def test_an_evaluation_is_json_of_plain_types(probabilities, severities):
    severities[:, :5] = -1
    got = evaluate(probabilities, severities).to_json()
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert got["score"]["spinal"] is None
    assert got["auc"]["spinal_canal_stenosis"] is None
    assert got["score"]["total"] == pytest.approx(
        (got["score"]["foraminal"] + got["score"]["subarticular"]) / 2
    )


def test_the_table_of_cells_adds_up_to_the_parts(probabilities, severities):
    got = evaluate(probabilities, severities)
    named = [f"{cell.condition}_{cell.level}" for cell in got.cells]
    assert named == list(CELLS)
    counts = np.array([list(cell.severities.values()) for cell in got.cells])
    assert counts.sum() == got.n_cells
    assert counts[7].tolist() == [(severities[:, 7] == s).sum() for s in range(3)]
    weights = counts @ (1, 2, 4)
    for part, cells in (("spinal", slice(0, 5)), ("foraminal", slice(5, 15))):
        for name, of in (("loss", got.score), ("prior_loss", got.prior)):
            losses = np.array([getattr(cell, name) for cell in got.cells])
            mean = np.average(losses[cells], weights=weights[cells])
            assert getattr(of, part) == pytest.approx(mean, rel=1e-12)


def test_a_cell_without_labels_has_no_loss(probabilities, severities):
    severities[:, 3] = -1
    cell = evaluate(probabilities, severities).cells[3]
    assert (cell.level, cell.loss, cell.prior_loss, cell.auc) == (LEVELS[3], None, None, None)


def test_intervals_hold_the_score(probabilities, severities):
    got = evaluate(probabilities, severities)
    for part in (*PARTS, "total"):
        interval = got.intervals[part]
        assert interval.low < getattr(got.score, part) < interval.high


def test_two_predictions_are_compared_on_the_studies_of_both(cache, severities, probabilities):
    ours = Predicted(tuple(STUDY_IDS[2:]), probabilities[2:])
    worse = np.full((12, 25, 3), 1 / 3)
    theirs = Predicted((*STUDY_IDS[::-1][:6], "unlabelled"), worse[:7])
    got = compare(ours, theirs, cache.labels, where="a file")
    assert got.n_studies == 6
    expected = score(probabilities[6:], severities[6:])
    assert got.score.total == pytest.approx(expected.total, rel=1e-12)
    assert got.difference["spinal"] == pytest.approx(expected.spinal - np.log(3), rel=1e-9)
    assert got.intervals["total"].low < got.difference["total"] < got.intervals["total"].high < 0
    assert json.loads(json.dumps(got.to_json(), allow_nan=False)) == got.to_json()
    with pytest.raises(InputError, match="no predicted study is labelled"):
        compare(ours, Predicted(("x",), worse[:1]), cache.labels, where="a file")


def test_files_of_different_studies_are_joined_and_others_refused(tmp_path, probabilities):
    first = Predicted(("1", "2"), probabilities[:2])
    second = Predicted(("3",), probabilities[2:3])
    joined = join([first, second], [tmp_path / "a", tmp_path / "b"])
    assert joined.study_ids == ("1", "2", "3")
    assert np.array_equal(joined.of(["3", "1"]), probabilities[[2, 0]])
    with pytest.raises(InputError, match=r"b; got study 2, which .*/a has too"):
        join([first, Predicted(("2",), probabilities[1:2])], [tmp_path / "a", tmp_path / "b"])
