"""The weights of a group: the loss is the metric's, the minimum that of SciPy, the edges."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lumbar.cache.names import GROUP_CELLS
from lumbar.train.ensemble.solver import GroupCells, GroupLoss, fit_weights
from lumbar.train.evaluation.metric import score

SPACES = ("probability", "log")


def group_cells(seed, *, members=3, studies=60, any_severe=True, skills=(1.0, 0.6, 0.2)):
    """Members that know the truth more or less well, each without some cells."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, studies * 5, p=(0.6, 0.25, 0.15))
    probabilities = rng.dirichlet([1, 1, 1], (members, studies * 5))
    probabilities += np.array(skills)[:, None, None] * (truth[:, None] == np.arange(3))
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    eligible = rng.random((members, studies * 5)) < 0.8
    eligible[0, ~eligible.any(axis=0)] = True
    probabilities[~eligible] = 1 / 3
    study = np.repeat(np.arange(studies), 5)
    return GroupCells(probabilities, eligible, truth, study, any_severe)


def loss_of(cells, space, weights):
    return float(GroupLoss(cells, space)(torch.as_tensor(weights)))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("any_severe", [False, True])
def test_the_loss_is_that_of_the_metric(space, any_severe):
    cells = group_cells(1, any_severe=any_severe)
    weights = np.array([0.5, 0.2, 0.3])
    shares = weights[:, None] * cells.eligible
    shares = (shares / shares.sum(axis=0))[..., None]
    if space == "log":
        mixed = np.exp((shares * np.log(cells.probabilities)).sum(axis=0))
    else:
        mixed = (shares * cells.probabilities).sum(axis=0)
    probabilities = np.full((60, 25, 3), 1 / 3)
    severities = np.full((60, 25), -1, np.int8)
    probabilities[:, GROUP_CELLS["spinal"]] = mixed.reshape(60, 5, 3)
    severities[:, GROUP_CELLS["spinal"]] = cells.truth.reshape(60, 5)
    found = score(probabilities, severities)
    expected = found.spinal + (found.any_severe_spinal if any_severe else 0)
    assert loss_of(cells, space, weights) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_the_weights_are_those_of_another_solver(space, seed):
    """SciPy's SLSQP, with the bounds and the sum as they are."""
    cells = group_cells(seed)
    found = fit_weights(cells, space)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    other = minimize(
        lambda weights: loss_of(cells, space, weights),
        np.full(3, 1 / 3),
        method="SLSQP",
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-10},
    )
    assert loss_of(cells, space, found) < other.fun + 1e-4
    assert found == pytest.approx(other.x, abs=0.03)


@pytest.mark.parametrize("space", SPACES)
def test_no_other_weights_lose_less(space):
    cells = group_cells(2)
    least = loss_of(cells, space, fit_weights(cells, space))
    for other in np.random.default_rng(0).dirichlet([1, 1, 1], 400):
        assert loss_of(cells, space, other) > least - 1e-5


@pytest.mark.parametrize("space", SPACES)
def test_a_member_that_knows_nothing_has_no_weight(space):
    cells = group_cells(3, skills=(1.5, 1.5, 0.0), studies=200)
    found = fit_weights(cells, space)
    assert found[2] < 0.02
    assert found[:2] == pytest.approx([0.5, 0.5], abs=0.25)


def test_the_only_member_of_a_cell_keeps_its_small_weight():
    """Two cells: the first has both members, the second the small one alone."""
    cells = GroupCells(
        probabilities=np.array(
            [[[0.8, 0.1, 0.1], [1 / 3] * 3], [[0.1, 0.8, 0.1], [0.7, 0.2, 0.1]]]
        ),
        eligible=np.array([[True, False], [True, True]]),
        truth=np.zeros(2, np.int64),
        study=np.arange(2),
        any_severe=False,
    )
    weights = fit_weights(cells, "probability")
    assert 0 < weights[1] < 1e-2
    assert weights.sum() == pytest.approx(1)
