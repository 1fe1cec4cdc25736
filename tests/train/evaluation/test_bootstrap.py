"""Intervals: against a loop over resamples, against theory, and paired against unpaired."""

import numpy as np
import pytest

from lumbar.train.evaluation.bootstrap import (
    RESAMPLES,
    SEED,
    by_patient,
    difference_intervals,
    score_intervals,
)
from lumbar.train.evaluation.metric import PARTS, StudyTerms, score, study_terms


@pytest.fixture
def severities():
    return np.random.default_rng(1).choice(
        np.array([-1, 0, 1, 2], np.int8), (150, 25), p=[0.1, 0.6, 0.2, 0.1]
    )


def predictions(severities, seed, skill=1.0):
    rows = np.random.default_rng(seed).dirichlet([2, 2, 2], severities.shape)
    rows += skill * (severities[..., None] == np.arange(3))
    return rows / rows.sum(axis=2, keepdims=True)


def test_intervals_are_those_of_a_loop_that_scores_every_resample(severities):
    probabilities = predictions(severities, 2)
    got = score_intervals(study_terms(probabilities, severities))
    rng = np.random.default_rng(SEED)
    scores = []
    for _ in range(4):
        scores += [
            score(probabilities[drawn], severities[drawn]).to_json()
            for drawn in rng.integers(150, size=(250, 150))
        ]
    assert len(scores) == RESAMPLES
    for part in (*PARTS, "total"):
        low, high = np.quantile([one[part] for one in scores], [0.025, 0.975])
        assert (got[part].low, got[part].high) == pytest.approx((low, high), rel=1e-12)


def test_the_same_terms_give_the_same_interval(severities):
    terms = study_terms(predictions(severities, 2), severities)
    assert score_intervals(terms) == score_intervals(terms)


def test_an_interval_is_as_wide_as_the_normal_theory_of_a_mean_says():
    # One part with weights of one: the score is the mean loss of the studies.
    rng = np.random.default_rng(0)
    losses = np.zeros((2000, 4))
    losses[:, 1] = rng.gamma(2.0, 0.5, 2000)
    terms = StudyTerms(losses, np.where(losses > 0, 1.0, 0.0))
    got = score_intervals(terms)
    assert got["spinal"] is got["any_severe_spinal"] is None
    error = losses[:, 1].std() / np.sqrt(2000)
    assert got["foraminal"] == got["total"]
    expected = losses[:, 1].mean() - 1.96 * error, losses[:, 1].mean() + 1.96 * error
    assert (got["total"].low, got["total"].high) == pytest.approx(expected, abs=0.2 * error)


def test_a_paired_difference_sees_what_the_two_intervals_hide(severities):
    plain = predictions(severities, 2)
    better = plain * np.where(severities[..., None] == np.arange(3), 1.03, 1.0)
    better /= better.sum(axis=2, keepdims=True)
    ours, theirs = study_terms(better, severities), study_terms(plain, severities)
    difference = difference_intervals(ours, theirs)["total"]
    assert difference.low < difference.high < 0
    alone, other = score_intervals(ours)["total"], score_intervals(theirs)["total"]
    assert alone.high > other.low
    assert difference_intervals(ours, ours)["total"].low == 0
    swapped = difference_intervals(theirs, ours)["total"]
    assert (swapped.low, swapped.high) == pytest.approx((-difference.high, -difference.low))


def test_resamples_without_a_label_of_a_part_say_nothing_of_it():
    # One study in six has a spinal label, so a third of the resamples draws none of it.
    severities = np.zeros((6, 25), np.int8)
    severities[1:, :5] = -1
    got = score_intervals(study_terms(np.full((6, 25, 3), 1 / 3), severities))
    assert (got["spinal"].low, got["spinal"].high) == pytest.approx((np.log(3), np.log(3)))


def test_the_studies_of_a_patient_are_drawn_together(severities):
    terms = study_terms(predictions(severities, 2), severities)
    study_ids = [f"s{row}" for row in range(150)]
    alone = by_patient(terms, study_ids, {})
    assert np.array_equal(alone.losses, terms.losses)
    assert np.array_equal(alone.weights, terms.weights)
    # Every patient's study five times over says no more than once; as 150 studies it would.
    five = StudyTerms(np.repeat(terms.losses[:30], 5, axis=0), np.repeat(terms.weights[:30], 5, 0))
    patients = {f"s{row}": f"s{row - row % 5}" for row in range(150)}
    once = StudyTerms(terms.losses[:30], terms.weights[:30])
    of_patients = score_intervals(by_patient(five, study_ids, patients))["total"]
    of_once, of_studies = (score_intervals(one)["total"] for one in (once, five))
    assert (of_patients.low, of_patients.high) == pytest.approx((of_once.low, of_once.high))
    assert of_studies.high - of_studies.low < 0.7 * (of_once.high - of_once.low)
