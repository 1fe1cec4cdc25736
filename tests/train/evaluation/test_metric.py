import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lumbar.cache.errors import InputError
from lumbar.cache.names import CONDITIONS, GROUP_CELLS, LEVELS
from lumbar.train.evaluation.baselines import (
    for_studies,
    leave_one_out_prior,
    parts_by_prior,
    uniform,
    weighted_prior,
    with_floor,
)
from lumbar.train.evaluation.metric import LOG_EPS, score

WEIGHTS = (1.0, 2.0, 4.0)
GROUPS = ("spinal", "foraminal", "subarticular")


def clip(p):
    return min(max(p, LOG_EPS), 1 - LOG_EPS)


def naive_score(probabilities, severities):
    """The metric cell by cell, as its description reads."""
    parts = {}
    for part in GROUPS:
        losses = weights = 0.0
        for study in range(len(severities)):
            for c, condition in enumerate(CONDITIONS):
                for level in range(len(LEVELS)):
                    cell = c * 5 + level
                    truth = severities[study, cell]
                    if part not in condition or truth < 0:
                        continue
                    row = [float(p) for p in probabilities[study, cell]]
                    losses -= WEIGHTS[truth] * np.log(clip(row[truth] / sum(row)))
                    weights += WEIGHTS[truth]
        parts[part] = losses / weights if weights else None
    losses = weights = 0.0
    for study in range(len(severities)):
        levels = [level for level in range(5) if severities[study, level] >= 0]
        if not levels:
            continue
        t = any(severities[study, level] == 2 for level in levels)
        rows = [[float(p) for p in probabilities[study, level]] for level in levels]
        q = clip(max(row[2] / sum(row) for row in rows))
        weight = max(WEIGHTS[severities[study, level]] for level in levels)
        losses -= weight * (np.log(q) if t else np.log(1 - q))
        weights += weight
    parts["any_severe_spinal"] = losses / weights if weights else None
    present = [value for value in parts.values() if value is not None]
    return parts | {"total": sum(present) / len(present)}


def assert_same(got, expected):
    assert got.to_json().keys() == expected.keys()
    for name, value in got.to_json().items():
        assert (value is None) == (expected[name] is None), name
        if value is not None:
            assert value == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(
    severities=st.integers(1, 6).flatmap(
        lambda n: arrays(np.int8, (n, 25), elements=st.integers(-1, 2))
    ),
    seed=st.integers(0, 2**32 - 1),
    sharpness=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_score_equals_a_loop_over_cells(severities, seed, sharpness):
    rng = np.random.default_rng(seed)
    probabilities = np.exp(sharpness * rng.standard_normal((len(severities), 25, 3)))
    if (severities < 0).all():
        with pytest.raises(InputError, match="nothing to score"):
            score(probabilities, severities)
        return
    assert_same(score(probabilities, severities), naive_score(probabilities, severities))


def test_float32_is_scored_in_float64():
    rng = np.random.default_rng(0)
    severities = rng.integers(-1, 3, (40, 25)).astype(np.int8)
    probabilities = rng.dirichlet([1, 1, 1], (40, 25)).astype(np.float32)
    assert score(probabilities, severities) == score(probabilities.astype(np.float64), severities)


@pytest.mark.parametrize("severity", [0, 1, 2])
def test_parts_of_one_class(severity):
    severities = np.full((3, 25), severity, np.int8)
    rng = np.random.default_rng(severity)
    probabilities = rng.random((3, 25, 3)) + 0.01
    assert_same(score(probabilities, severities), naive_score(probabilities, severities))


def test_a_certain_mistake_costs_the_clipped_logarithm():
    severities = np.full((1, 25), -1, np.int8)
    severities[0, 5] = 2
    probabilities = np.full((1, 25, 3), 1 / 3)
    probabilities[0, 5] = (1, 0, 0)
    assert score(probabilities, severities).foraminal == pytest.approx(-np.log(LOG_EPS))


def test_a_part_without_labels_is_none_and_out_of_the_total():
    severities = np.full((4, 25), -1, np.int8)
    severities[:, GROUP_CELLS["foraminal"]] = 1
    got = score(np.tile([0.2, 0.5, 0.3], (4, 25, 1)), severities)
    assert (got.spinal, got.subarticular, got.any_severe_spinal) == (None, None, None)
    assert got.foraminal == got.total == pytest.approx(np.log(2))


def test_unlabelled_rows_are_not_looked_at():
    severities = np.zeros((2, 25), np.int8)
    severities[1, 3] = -1
    probabilities = np.full((2, 25, 3), 1 / 3)
    probabilities[1, 3] = np.nan
    assert score(probabilities, severities).spinal == pytest.approx(np.log(3))
    # Nor does an unlabelled level count in "any severe".
    probabilities[1, 3] = (0, 0, 1)
    assert score(probabilities, severities).any_severe_spinal == pytest.approx(np.log(1.5))


@pytest.mark.parametrize("row", [(0, 0, 0), (np.nan, 1, 0), (np.inf, 0, 0), (-0.1, 0.6, 0.5)])
def test_rows_that_are_no_probabilities_are_refused(row):
    probabilities = np.full((2, 25, 3), 1 / 3)
    probabilities[1, 7] = row
    with pytest.raises(InputError, match="row 1, cell 7"):
        score(probabilities, np.zeros((2, 25), np.int8))


COUNTS = {
    # moderate and severe by level: L1/L2 to L5/S1
    "spinal": ((38, 91, 160, 304, 148), (8, 35, 90, 262, 79)),
    "foraminal": ((127, 376, 748, 1646, 678), (15, 62, 153, 426, 134)),
    "subarticular": ((213, 484, 816, 1481, 758), (70, 202, 398, 864, 362)),
}


@pytest.fixture(scope="module")
def table_of_the_competition():
    """Labels with the counts of the competition: 1,975 studies, 365 with a severe canal.

    Published are the rates of the groups and the scores of priors. How the findings lie over the
    levels is not: the counts here are the group rates, spread so that the weighted prior of each
    group scores what it should. How many canals are moderate at worst is not published either: 346
    is what the score of the uniform prediction implies.
    """
    severities = np.zeros((1975, 25), np.int8)
    for part in ("foraminal", "subarticular"):
        for level, (moderate, severe) in enumerate(zip(*COUNTS[part], strict=True)):
            cells = [cell for cell in GROUP_CELLS[part] if cell % 5 == level]
            column = np.zeros(2 * 1975, np.int8)
            column[:severe], column[severe : severe + moderate] = 2, 1
            severities[:, cells] = column.reshape(-1, 2)
    moderate, severe = COUNTS["spinal"]
    next_severe = 0
    for level in (3, 4, 1, 2, 0):  # round the 365 severe studies, each level on other ones
        severities[(next_severe + np.arange(severe[level])) % 365, level] = 2
        next_severe += severe[level]
    mild = np.flatnonzero(severities[:365, 3] == 0)
    severities[mild, 3] = 1
    last = 365 + moderate[3] - len(mild)
    severities[365:last, 3] = 1
    severities[last:711, 2] = 1
    severities[365 : 365 + moderate[2] - (711 - last), 2] = 1
    for level in (0, 1, 4):
        severities[365 : 365 + moderate[level], level] = 1
    return severities


def test_the_table_has_the_counts_of_the_competition(table_of_the_competition):
    severities = table_of_the_competition
    spinal = severities[:, :5]
    worst = spinal.max(axis=1)
    assert ((worst == 2).sum(), (worst == 1).sum()) == (365, 346)
    rates = {
        "spinal": (0.878, 0.075, 0.048),
        "foraminal": (0.780, 0.181, 0.040),
        "subarticular": (0.714, 0.190, 0.096),
    }
    for part, expected in rates.items():
        cells = severities[:, GROUP_CELLS[part]]
        got = [(cells == severity).mean() for severity in range(3)]
        assert got == pytest.approx(expected, abs=1.5e-3), part


def test_uniform_scores_what_the_competition_says(table_of_the_competition):
    severities = table_of_the_competition
    got = score(for_studies(uniform(), len(severities)), severities)
    assert got.total == pytest.approx(0.9994, abs=5e-5)
    for part in GROUPS:
        assert getattr(got, part) == pytest.approx(np.log(3), rel=1e-12)


def test_priors_score_what_the_competition_says(table_of_the_competition):
    severities = table_of_the_competition
    got = score(for_studies(weighted_prior(severities), len(severities)), severities)
    expected = {"spinal": 0.706, "foraminal": 0.804, "subarticular": 0.951}
    expected |= {"any_severe_spinal": 0.698, "total": 0.790}
    assert got.to_json() == pytest.approx(expected, abs=1e-3)


def test_the_weighted_prior_is_the_share_of_weight_of_each_severity():
    severities = np.zeros((8, 25), np.int8)
    severities[:2, 4] = 1
    severities[2, 4] = 2
    severities[3, 4] = -1
    assert weighted_prior(severities)[4] == pytest.approx([4 / 12, 4 / 12, 4 / 12])
    assert weighted_prior(severities)[0].tolist() == [1, 0, 0]


def test_an_empty_cell_takes_its_groups_prior_and_an_empty_group_a_third():
    severities = np.full((4, 25), -1, np.int8)
    left_l1_l2, right_l5_s1 = GROUP_CELLS["foraminal"][0], GROUP_CELLS["foraminal"][-1]
    severities[:, left_l1_l2] = (0, 0, 1, 2)
    prior = weighted_prior(severities)
    assert prior[right_l5_s1] == pytest.approx([2 / 8, 2 / 8, 4 / 8])
    assert prior[GROUP_CELLS["spinal"]] == pytest.approx(np.full((5, 3), 1 / 3))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_other_constant_beats_the_weighted_prior(seed):
    rng = np.random.default_rng(seed)
    severities = rng.choice(np.array([-1, 0, 1, 2], np.int8), (30, 25), p=[0.1, 0.6, 0.2, 0.1])
    best = weighted_prior(severities)
    other = best + rng.dirichlet([1, 1, 1], 25) * rng.uniform(0.01, 1)
    reference = score(for_studies(best, 30), severities)
    rival = score(for_studies(other, 30), severities)
    for part in GROUPS:
        assert getattr(reference, part) <= getattr(rival, part)


def test_the_floor_leaves_nothing_impossible():
    floored = with_floor(weighted_prior(np.zeros((3, 25), np.int8)))
    assert floored.min() > 0
    assert floored.sum(axis=1) == pytest.approx(np.ones(25))


def test_the_prior_that_leaves_a_study_out_is_that_of_all_others():
    rng = np.random.default_rng(5)
    severities = rng.choice(np.array([-1, 0, 1, 2], np.int8), (9, 25), p=[0.3, 0.5, 0.1, 0.1])
    severities[1:, 2] = -1  # known of one study alone, which then has its group's
    severities[:, 15:] = -1  # a group of which nothing is known
    got = leave_one_out_prior(severities)
    for study in range(9):
        others = np.delete(severities, study, axis=0)
        assert np.array_equal(got[study], with_floor(weighted_prior(others)))


def test_the_parts_in_which_a_prior_stands_in_are_those_with_a_labelled_cell_of_it():
    severities = np.zeros((2, 25), np.int8)
    by_prior = np.zeros((2, 25), bool)
    assert parts_by_prior(by_prior, severities) == []
    by_prior[1, 3] = True
    assert parts_by_prior(by_prior, severities) == ["spinal", "any_severe_spinal", "total"]
    severities[1, 3] = -1
    assert parts_by_prior(by_prior, severities) == []
    by_prior[0, 24] = True
    assert parts_by_prior(by_prior, severities) == ["subarticular", "total"]
