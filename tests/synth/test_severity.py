import numpy as np
import pytest

from lumbar.cache.names import CONDITION_GROUPS
from lumbar.synth.severity import SEVERITY_RATES, UNKNOWN, hide_grades, sample_severities

N_STUDIES = 4000


@pytest.fixture(scope="module")
def truths() -> np.ndarray:
    return np.stack([sample_severities(np.random.default_rng([1, i])) for i in range(N_STUDIES)])


@pytest.mark.parametrize("group", list(CONDITION_GROUPS))
def test_rates_are_those_of_the_public_labels(truths: np.ndarray, group: str) -> None:
    cells = truths[:, list(CONDITION_GROUPS[group])]
    rates = [float(np.mean(cells == severity)) for severity in range(3)]
    total = sum(SEVERITY_RATES[group])
    # Four standard errors, doubled for the correlation within a study.
    for rate, expected in zip(rates, SEVERITY_RATES[group], strict=True):
        assert rate == pytest.approx(expected / total, abs=8 * (0.25 / cells.size) ** 0.5)


def test_lower_levels_are_worse(truths: np.ndarray) -> None:
    by_level = (truths > 0).mean(axis=(0, 1))
    assert by_level[3] > by_level[1] > by_level[0]


def test_groups_are_independent(truths: np.ndarray) -> None:
    spinal = (truths[:, 0] > 0).sum(axis=1)
    foraminal = (truths[:, 1:3] > 0).sum(axis=(1, 2))
    subarticular = (truths[:, 3:5] > 0).sum(axis=(1, 2))
    correlations = np.corrcoef([spinal, foraminal, subarticular])[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 5 / N_STUDIES**0.5


def test_levels_of_a_group_go_together(truths: np.ndarray) -> None:
    affected = truths[:, 1:3].reshape(N_STUDIES, -1) > 0
    variance_if_independent = (affected.mean(axis=0) * (1 - affected.mean(axis=0))).sum()
    assert affected.sum(axis=1).var() > 1.3 * variance_if_independent


def test_empty_cells_are_few_and_mostly_upper_subarticular(truths: np.ndarray) -> None:
    labels = np.stack(
        [hide_grades(np.random.default_rng([2, i]), truth) for i, truth in enumerate(truths)]
    )
    unknown = labels == UNKNOWN
    assert 0.009 < unknown.mean() < 0.015
    assert unknown[:, 3:5].sum() > 0.85 * unknown.sum()
    assert unknown[:, 3:5, :2].sum() > 0.7 * unknown.sum()
    assert not unknown.all(axis=(1, 2)).any()
    assert np.array_equal(labels[~unknown], truths[~unknown])
