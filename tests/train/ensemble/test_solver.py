"""The weights of a group: the slope by finite differences, the minimum by a search, the edges."""

import numpy as np
import pytest

from lumbar.train.ensemble import solver as blend_weights
from lumbar.train.ensemble.solver import GroupCells, fit_weights, projected

SPACES = ("probability", "log")


def group_cells(seed, *, members=3, studies=60, any_severe=True, skills=(1.0, 0.6, 0.2)):
    """Members that know the truth more or less well, each silent on some cells."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, studies * 5, p=(0.6, 0.25, 0.15))
    words = rng.dirichlet([1, 1, 1], (members, studies * 5))
    words += np.array(skills)[:, None, None] * (truth[:, None] == np.arange(3))
    words /= words.sum(axis=2, keepdims=True)
    asked = rng.random((members, studies * 5)) < 0.8
    asked[0, ~asked.any(axis=0)] = True
    words[~asked] = 1 / 3
    study = np.repeat(np.arange(studies), 5)
    return GroupCells(words, asked, truth, study, any_severe)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("any_severe", [False, True])
def test_the_slope_is_that_of_finite_differences(space, any_severe):
    cells = group_cells(1, any_severe=any_severe)
    values = np.log(cells.words) if space == "log" else cells.words
    weights = np.array([0.5, 0.2, 0.3])

    def loss(at):
        return blend_weights._loss_and_slope(cells, values, at, space)[0]

    _, slope = blend_weights._loss_and_slope(cells, values, weights, space)
    numeric = [(loss(weights + e) - loss(weights - e)) / 2e-6 for e in 1e-6 * np.eye(3)]
    assert slope == pytest.approx(np.array(numeric), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("space", SPACES)
def test_no_other_weights_lose_less(space):
    cells = group_cells(2)
    values = np.log(cells.words) if space == "log" else cells.words
    found = fit_weights(cells, space)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    least = blend_weights._loss_and_slope(cells, values, found, space)[0]
    for other in np.random.default_rng(0).dirichlet([1, 1, 1], 400):
        assert blend_weights._loss_and_slope(cells, values, other, space)[0] > least - 1e-5


@pytest.mark.parametrize("space", SPACES)
def test_a_member_that_knows_nothing_has_no_weight(space):
    cells = group_cells(3, skills=(1.5, 1.5, 0.0), studies=200)
    found = fit_weights(cells, space)
    assert found[2] < 0.02
    assert found[:2] == pytest.approx([0.5, 0.5], abs=0.25)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0.2, 0.3, 0.5), (0.2, 0.3, 0.5)),
        ((1.2, 0.2, -5.0), (1.0, 0.0, 0.0)),
        ((0.7, 0.7, 0.0), (0.5, 0.5, 0.0)),
        ((5.0, 5.0, 5.0), (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_the_projection_is_the_nearest_point(point, expected):
    found = projected(np.array(point))
    assert found == pytest.approx(np.array(expected))
    rivals = np.random.default_rng(0).dirichlet([1, 1, 1], 500)
    assert np.linalg.norm(found - point) <= np.linalg.norm(rivals - point, axis=1).min() + 1e-12
