import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lumbar.cache.errors import InputError, LumbarError, MissingError
from lumbar.cache.names import CELLS
from lumbar.train.ensemble.combine import CellReason, Combined
from lumbar.train.evaluation.predictions import Predictions
from lumbar.train.evaluation.submission import (
    ROW_ORDER,
    check_sample,
    read_submission,
    rows_of,
    rows_of_sample,
    sample_studies,
    write_submission,
)
from lumbar.train.inference.provenance import check_predicted, write_provenance


@pytest.fixture
def probabilities():
    return np.random.default_rng(3).dirichlet([1, 1, 1], (3, 25))


@pytest.fixture
def lines(tmp_path, probabilities):
    """The lines of a good submission of three studies, to be spoilt."""
    path = tmp_path / "good.csv"
    write_submission(path, Predictions(("20", "3", "100"), probabilities))
    return path.read_text().splitlines()


def spoilt(tmp_path, lines):
    path = tmp_path / "spoilt.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_are_in_alphabetical_order_within_studies_in_text_order(lines):
    row_ids = [line.split(",")[0] for line in lines[1:]]
    assert lines[0] == "row_id,normal_mild,moderate,severe"
    assert [row_id.split("_")[0] for row_id in row_ids[::25]] == ["100", "20", "3"]
    assert row_ids == sorted(row_ids)
    assert row_ids[0] == "100_left_neural_foraminal_narrowing_l1_l2"
    assert row_ids[24] == "100_spinal_canal_stenosis_l5_s1"
    assert list(ROW_ORDER) != list(range(25))


def test_values_come_back_to_the_last_bit_and_rows_sum_to_one(tmp_path, probabilities):
    path = tmp_path / "new" / "submission.csv"
    write_submission(path, Predictions(("20", "3", "100"), probabilities * 7))
    got = read_submission(path)
    assert got.study_ids == ("100", "20", "3")
    sevenfold = probabilities[[2, 0, 1]] * 7
    assert np.array_equal(got.probabilities, sevenfold / sevenfold.sum(axis=2, keepdims=True))
    assert np.abs(got.probabilities.sum(axis=2) - 1).max() < 1e-15
    assert list(path.parent.iterdir()) == [path]


def test_float32_rows_sum_to_one_in_float64(tmp_path, probabilities):
    path = tmp_path / "submission.csv"
    write_submission(
        path, Predictions(("1", "2", "3"), probabilities.astype(np.float32).astype(np.float64))
    )
    assert np.abs(read_submission(path).probabilities.sum(axis=2) - 1).max() < 1e-15


def test_tiny_probabilities_are_not_lost(tmp_path):
    probabilities = np.full((1, 25, 3), [1.0, 1e-7, 1e-300])
    write_submission(tmp_path / "s.csv", Predictions(("1",), probabilities))
    assert read_submission(tmp_path / "s.csv").probabilities[0, 0, 2] == pytest.approx(1e-300)


def test_rows_and_columns_may_come_in_any_order(tmp_path, lines, probabilities):
    rows = [line.split(",") for line in lines]
    turned = [",".join([row[3], row[0], row[2], row[1]]) for row in [rows[0], *rows[:0:-1]]]
    got = read_submission(spoilt(tmp_path, turned))
    assert got.study_ids == ("100", "20", "3")
    assert got.probabilities == pytest.approx(probabilities[[2, 0, 1]])


def test_a_study_id_may_hold_underscores(tmp_path):
    write_submission(tmp_path / "s.csv", Predictions(("a_b_l1_l2",), np.ones((1, 25, 3))))
    assert read_submission(tmp_path / "s.csv").study_ids == ("a_b_l1_l2",)


def test_a_failed_write_leaves_the_old_file(tmp_path, probabilities):
    path = tmp_path / "submission.csv"
    write_submission(path, Predictions(("1", "2", "3"), probabilities))
    before = path.read_bytes()
    probabilities[1, 4, 0] = np.nan
    with pytest.raises(InputError, match=f"2_{CELLS[4]}.*diverged"):
        write_submission(path, Predictions(("1", "2", "3"), probabilities))
    with pytest.raises(InputError, match="more than once"):
        write_submission(path, Predictions(("1", "1", "3"), np.ones((3, 25, 3))))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "shown"),
    [("-0.1", "'-0.1'"), ("nan", "'nan'"), ("inf", "'inf'"), ("much", "'much'"), ("", "None")],
)
def test_bad_values_are_named_by_line_and_column(tmp_path, lines, value, shown):
    row_id, normal, _, severe = lines[30].split(",")
    lines[30] = f"{row_id},{normal},{value},{severe}"
    with pytest.raises(InputError) as caught:
        read_submission(spoilt(tmp_path, lines))
    assert f"spoilt.csv line 31 column moderate; got {shown}; expected" in str(caught.value)


def test_a_row_of_zeros_is_refused(tmp_path, lines):
    lines[2] = lines[2].split(",")[0] + ",0,0.0,0"
    with pytest.raises(InputError, match="line 3; got three zeros"):
        read_submission(spoilt(tmp_path, lines))


def test_a_missing_row_is_named(tmp_path, lines):
    gone = lines.pop(26 + 24)
    assert gone.startswith("20_spinal_canal_stenosis_l5_s1")
    with pytest.raises(InputError) as caught:
        read_submission(spoilt(tmp_path, lines))
    assert "24 rows of study 20, without spinal_canal_stenosis_l5_s1" in str(caught.value)


def test_a_row_that_comes_twice_is_named(tmp_path, lines):
    lines.append(lines[5])
    with pytest.raises(InputError, match=r"comes twice.*line 77"):
        read_submission(spoilt(tmp_path, lines))


@pytest.mark.parametrize("row_id", ["100_spinal_canal_stenosis_l6_s1", "_bad", "", "100"])
def test_an_unknown_row_id_is_named(tmp_path, lines, row_id):
    lines[4] = f"{row_id},0.2,0.3,0.5"
    with pytest.raises(InputError, match=r"unknown row_id.*line 5"):
        read_submission(spoilt(tmp_path, lines))


@pytest.mark.parametrize(
    ("header", "missing"),
    [("row_id,normal_mild,moderate,grave", "severe"), ("id,normal_mild,moderate,severe", "row_id")],
)
def test_wrong_columns_are_named(tmp_path, lines, header, missing):
    with pytest.raises(InputError) as caught:
        read_submission(spoilt(tmp_path, [header, *lines[1:]]))
    assert f"missing ['{missing}']" in str(caught.value)


def test_files_that_are_no_submission(tmp_path, lines):
    with pytest.raises(MissingError, match="no such file"):
        read_submission(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="without rows"):
        read_submission(spoilt(tmp_path, lines[:1]))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match="cannot be read"):
        read_submission(tmp_path / "empty.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_submission(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_submission(spoilt(tmp_path, [*lines, "1,2,3,4,5,6"]))


def combined_of(n):
    study_ids = tuple(f"s{study}" for study in range(n))
    return Combined(
        predictions=Predictions(study_ids, np.full((n, 25, 3), 1 / 3)),
        n_models=np.arange(n * 25).reshape(n, 25),
        model_names=[[f"{study}-{cell}" for cell in range(25)] for study in range(n)],
        reasons=[[CellReason.OWN_SERIES] * 25] * n,
    )


def test_rows_are_those_of_the_sample_in_its_order(tmp_path, lines, probabilities):
    rng = np.random.default_rng(0)
    shuffled = [lines[0], *rng.permutation(lines[1:]).tolist()[:60]]
    sample = spoilt(tmp_path, shuffled)
    study_ids = ["20", "3", "100", "7"]
    rows = rows_of_sample(sample, study_ids)
    more = np.concatenate([probabilities, probabilities[:1]])
    write_submission(tmp_path / "s.csv", Predictions(tuple(study_ids), more), rows=rows)
    written = (tmp_path / "s.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in written] == [line.split(",")[0] for line in shuffled]
    # The values of the sample are those of the same predictions, in other order.
    got = [list(map(float, line.split(",")[1:])) for line in written[1:]]
    expected = [list(map(float, line.split(",")[1:])) for line in shuffled[1:]]
    assert np.allclose(got, expected, rtol=1e-12)
    assert set(sample_studies(sample)) == {"20", "3", "100"}
    with pytest.raises(InputError, match="a row's study is not predicted"):
        rows_of_sample(sample, ["20", "3"])


@pytest.mark.parametrize(
    ("named", "without", "there", "says"),
    [
        (["1", "2"], 0, ["1", "2"], None),
        (["2", "1", "9"], 0, ["1", "2"], "names 1 studies that are not there"),
        (["1"], 0, ["1", "2"], "1 of 2 studies without all of their rows: 2"),
        (["1", "9"], 0, ["1", "2"], "does not cover them"),
        (["1", "2"], 1, ["1", "2"], "does not cover them"),
        (["9"], 0, ["1", "2"], "none of the studies to predict"),
        ([], 0, ["1", "2"], "none of the studies to predict"),
        (["1.0", "2.0"], 0, ["1", "2"], "got 1.0 for 1, 2.0 for 2"),
        (["1", "02"], 0, ["1", "2"], "got 02 for 2"),
    ],
)
def test_a_sample_covers_what_is_there_or_has_to_be_named(
    tmp_path, caplog, named, without, there, says
):
    ids = [f"{study}_{cell}" for study in named for cell in CELLS]
    rows = [f"{row_id},0,0,1" for row_id in ids[: len(ids) - without]]
    sample = spoilt(tmp_path, ["row_id,normal_mild,moderate,severe", *rows])
    covers = set(named) >= set(there) and not without
    if covers:
        check_sample(sample, there, is_named=False)
    else:
        with pytest.raises(InputError, match=re.escape(says)):
            check_sample(sample, there, is_named=False)
    if covers or "does not cover" in says or "without all" in says:
        check_sample(sample, there, is_named=True)
        assert ("lacks rows of" in caplog.text) == (not covers)
    else:
        with pytest.raises(InputError, match=re.escape(says)):
            check_sample(sample, there, is_named=True)
    assert ("names 1 studies that are not there" in caplog.text) == (
        "9" in named and len(named) > 1
    )


def test_a_submission_of_priors_alone_is_told_by_its_rows(tmp_path):
    combined = combined_of(1)
    rows = rows_of(["9"], where=tmp_path)
    check_predicted(tmp_path, combined, rows)  # all but one row are a model's
    combined.n_models[:] = 0
    combined.reasons[0] = [CellReason.NO_MODEL] * 20 + [CellReason.NO_SERIES] * 5
    with pytest.raises(
        LumbarError, match=r"every row .* is the training prior.*5 of 25 rows nothing_to"
    ):
        check_predicted(tmp_path, combined, rows)
    combined.reasons[0] = [CellReason.PRIOR_WEIGHS_MORE] * 25
    check_predicted(tmp_path, combined, rows)  # as a blend wants it


def test_the_models_of_each_row_are_written_beside_the_submission(tmp_path):
    rows = rows_of(["9", "10"], where=tmp_path)
    path = write_provenance(tmp_path / "mine.csv", combined_of(2), rows)
    assert path == tmp_path / "mine_served_by.csv"
    table = pl.read_csv(path)
    assert table.columns == ["row_id", "served_by", "n_models", "reason"]
    assert table.height == 50
    cell = CELLS.index("left_subarticular_stenosis_l4_l5")
    (row,) = table.filter(pl.col("row_id") == "9_left_subarticular_stenosis_l4_l5").rows()
    assert row[1:] == (f"0-{cell}", cell, "own_series")
    (row,) = table.filter(pl.col("row_id") == "10_left_subarticular_stenosis_l4_l5").rows()
    assert row[1:] == (f"1-{cell}", 25 + cell, "own_series")


def test_the_page_has_every_reason_with_its_sentence():
    page = (Path(__file__).parents[3] / "docs/ensembles.md").read_text()
    for reason in CellReason:
        assert f"| `{reason}` | {reason.sentence} |" in page
