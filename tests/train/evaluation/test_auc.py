import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.train.evaluation.calibration import auc


def naive_auc(scores, positive):
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[positive]
        for n in scores[~positive]
    ]
    return sum(wins) / len(wins) if wins else None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_auc_equals_a_count_of_pairs(pairs):
    scores = np.array([score / 5 for score, _ in pairs], np.float64)
    positive = np.array([is_positive for _, is_positive in pairs], bool)
    assert auc(scores, positive) == pytest.approx(naive_auc(scores, positive))


def test_auc_of_a_perfect_and_of_a_reversed_order():
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    assert auc(scores, np.array([False, False, True, True])) == 1.0
    assert auc(scores, np.array([True, True, False, False])) == 0.0
