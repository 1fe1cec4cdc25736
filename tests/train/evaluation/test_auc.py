import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lumbar.train.evaluation.calibration import auc


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_auc_is_that_of_scikit_learn_ties_and_all(pairs):
    scores = np.array([score / 5 for score, _ in pairs], np.float64)
    positive = np.array([is_positive for _, is_positive in pairs], bool)
    expected = None if len(set(positive.tolist())) < 2 else roc_auc_score(positive, scores)
    assert auc(scores, positive) == pytest.approx(expected)


def test_auc_of_a_perfect_and_of_a_reversed_order():
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    assert auc(scores, np.array([False, False, True, True])) == 1.0
    assert auc(scores, np.array([True, True, False, False])) == 0.0
