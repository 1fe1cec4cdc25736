import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.format import LABELS_SCHEMA
from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.labels import label_arrays, label_table, severities_of
from lumbar.cache.names import CELLS, SEVERITY_TEXTS


def write_csv(path, rows, header=("study_id", *CELLS)):
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    return path


def row_of(study_id, severities):
    return [study_id, *("" if s < 0 else SEVERITY_TEXTS[s] for s in severities)]


@given(st.integers(0, 5).flatmap(lambda n: arrays(np.int8, (n, 25), elements=st.integers(-1, 2))))
def test_a_labels_table_holds_the_severities_and_one_hot_sums_equal_known(severities):
    table = label_table([f"{i}" for i in range(len(severities))], severities)
    one_hot, known = label_arrays(table)
    assert table.schema == LABELS_SCHEMA
    assert np.array_equal(severities_of(table), severities)
    assert np.array_equal(one_hot.sum(axis=2) == 1, known)
    assert np.array_equal(known, severities >= 0)


def test_columns_are_condition_level_severity():
    severities = np.full((1, 25), -1, np.int8)
    severities[0, 9] = 2
    row = label_table(["7"], severities).row(0, named=True)
    assert row.pop("left_neural_foraminal_narrowing_l5_s1_severe") == 1
    assert row.pop("left_neural_foraminal_narrowing_l5_s1_known") is True
    assert row.pop("study_id") == "7"
    assert not any(row.values())


def test_a_label_csv_comes_back_ordered_by_study(tmp_path):
    rng = np.random.default_rng(1)
    severities = rng.integers(-1, 3, (3, 25)).astype(np.int8)
    rows = [row_of(s, values) for s, values in zip(("20", "3", "100"), severities, strict=True)]
    # Columns may come in any order, and Windows line ends and a byte order mark do no harm.
    turned = [[*row[:1], *row[:0:-1]] for row in [["study_id", *CELLS], *rows]]
    path = tmp_path / "train.csv"
    text = "\r\n".join(",".join(row) for row in turned)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    table = read_label_csv(path)
    assert table["study_id"].to_list() == ["100", "20", "3"]
    assert np.array_equal(severities_of(table), severities[[2, 0, 1]])


def test_an_unknown_severity_is_named_by_line_and_column(tmp_path):
    rows = [row_of(f"{i}", [0] * 25) for i in range(3)]
    rows[1][4] = "Mild"
    with pytest.raises(InputError) as caught:
        read_label_csv(write_csv(tmp_path / "train.csv", rows))
    assert f"train.csv line 3 column {CELLS[3]}; got 'Mild'" in str(caught.value)
    assert "expected Normal/Mild, Moderate, Severe or an empty cell" in str(caught.value)


@pytest.mark.parametrize("study_id", ["5", ""])
def test_a_study_twice_or_without_an_id_is_refused(tmp_path, study_id):
    rows = [row_of("5", [0] * 25), row_of("6", [1] * 25), row_of(study_id, [0] * 25)]
    with pytest.raises(InputError, match=r"study_id.*line"):
        read_label_csv(write_csv(tmp_path / "train.csv", rows))


def test_wrong_columns_are_named(tmp_path):
    header = ("study_id", "spinal_stenosis_l1_l2", *CELLS[1:])
    with pytest.raises(InputError) as caught:
        read_label_csv(write_csv(tmp_path / "train.csv", [row_of("5", [0] * 25)], header))
    assert "missing ['spinal_canal_stenosis_l1_l2']" in str(caught.value)
    assert "unknown ['spinal_stenosis_l1_l2']" in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        read_label_csv(tmp_path / "train.csv")
