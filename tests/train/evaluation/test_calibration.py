import numpy as np
import pytest

from lumbar.cache.names import GROUP_CELLS, SEVERITIES
from lumbar.train.evaluation.baselines import for_studies, weighted_prior
from lumbar.train.evaluation.calibration import BINS, confusion, reliability


@pytest.fixture(scope="module")
def severities():
    rng = np.random.default_rng(5)
    return rng.choice(np.array([-1, 0, 1, 2], np.int8), (80, 25), p=[0.1, 0.5, 0.2, 0.2])


def test_bins_are_those_of_a_loop_over_cells(severities):
    probabilities = np.random.default_rng(6).dirichlet([1, 1, 1], severities.shape)
    probabilities[0, 0] = (1, 0, 0)
    got = reliability(probabilities, severities)
    for group, cells in GROUP_CELLS.items():
        for s, severity in enumerate(SEVERITIES):
            bins = [[] for _ in range(BINS)]
            for study in range(80):
                for cell in cells:
                    truth = severities[study, cell]
                    if truth >= 0:
                        p = probabilities[study, cell, s] / probabilities[study, cell].sum()
                        weight = (1, 2, 4)[truth]
                        bins[min(int(p * 10), 9)].append((weight, p, truth == s))
            expected = [
                (
                    sum(w * p for w, p, _ in found) / sum(w for w, _, _ in found),
                    sum(w for w, _, so in found if so) / sum(w for w, _, _ in found),
                    len(found),
                )
                for found in bins
                if found
            ]
            values = [(b.predicted, b.observed, b.cells) for b in got[group][severity]]
            assert np.array(values) == pytest.approx(np.array(expected)), (group, severity)


def test_the_best_constant_prediction_is_reliable_and_the_plain_frequency_is_not(severities):
    one_cell = np.full_like(severities, -1)
    one_cell[:, 0] = np.maximum(severities[:, 0], 0)
    best = for_studies(weighted_prior(one_cell), 80)
    for severity in SEVERITIES:
        (only,) = reliability(best, one_cell)["spinal"][severity]
        assert only.observed == pytest.approx(only.predicted)
    frequency = np.broadcast_to([(one_cell[:, 0] == s).mean() for s in range(3)], (80, 25, 3))
    (severe,) = reliability(frequency.copy(), one_cell)["spinal"]["severe"]
    assert severe.observed > 1.5 * severe.predicted


def test_confusion_counts_by_truth_and_most_probable_severity():
    severities = np.full((2, 25), -1, np.int8)
    severities[0, :3], severities[1, 5] = (0, 1, 2), 2
    probabilities = np.full((2, 25, 3), [0.5, 0.3, 0.2])
    probabilities[0, 2] = (0.1, 0.6, 0.3)
    probabilities[1, 5] = (0.1, 0.2, 0.7)
    got = confusion(probabilities, severities)
    assert got["spinal"] == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert got["foraminal"] == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert got["subarticular"] == [[0] * 3] * 3
