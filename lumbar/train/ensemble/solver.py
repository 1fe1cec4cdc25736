"""The weights of one group of conditions that lose least: projected gradient steps on the simplex.

Source of the projection: Duchi, Shalev-Shwartz, Singer, Chandra: Efficient projections onto the
l1-ball for learning in high dimensions (2008), figure 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lumbar.cache.names import SEVERE
from lumbar.train.ensemble.blend import SMALLEST, Space
from lumbar.train.evaluation.metric import SEVERITY_WEIGHTS

FLOOR = 1e-3
"""Added to every weight while fitting, so that a member that is asked alone always has one; weights
below it are 0 in the end."""
MOST_STEPS = 300
LEAST_GAIN = 1e-7
SUFFICIENT = 1e-4
"""Share of the slope that a step has to gain (Armijo's rule)."""

Weights = Float64[np.ndarray, " m"]


@dataclass(frozen=True, slots=True)
class GroupCells:
    """The labelled cells of a group of which somebody speaks, study by study.

    ``words`` are 1/3 where a member is not asked. With ``any_severe`` the loss has also the part of
    the metric that asks for the worst of a study's cells.
    """

    words: Float64[np.ndarray, "m cells 3"]
    asked: Bool[np.ndarray, "m cells"]
    truth: Int64[np.ndarray, " cells"]
    study: Int64[np.ndarray, " cells"]
    any_severe: bool


def fit_weights(cells: GroupCells, space: Space) -> Weights:
    """Return weights, none negative, that sum to one; a cell must be there."""
    logs = np.log(cells.words.clip(SMALLEST)) if space == "log" else cells.words

    def loss_of(weights: Weights) -> tuple[float, Weights]:
        return _loss_and_slope(cells, logs, weights, space)

    weights = _descend(loss_of, len(cells.words))
    weights[weights < FLOOR] = 0
    return np.asarray(weights / weights.sum())


def _descend(loss_of: Callable[[Weights], tuple[float, Weights]], members: int) -> Weights:
    """Go down from equal weights, each step as long as it pays."""
    weights = np.full(members, 1 / members)
    loss, slope = loss_of(weights)
    length = 1.0
    for _ in range(MOST_STEPS):
        while length > LEAST_GAIN:
            there = projected(weights - length * slope)
            new_loss, new_slope = loss_of(there)
            if new_loss <= loss - SUFFICIENT * float(slope @ (weights - there)):
                break
            length /= 2
        else:
            break
        gain, weights, loss, slope = loss - new_loss, there, new_loss, new_slope
        if gain < LEAST_GAIN:
            break
        length *= 2
    return weights


def projected(point: Weights) -> Weights:
    """Return the nearest weights that are not negative and sum to one."""
    falling = np.sort(point)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(point) + 1)
    last = np.flatnonzero(falling > excess)[-1]
    return np.asarray(np.maximum(point - excess[last], 0.0))


def _loss_and_slope(
    cells: GroupCells, values: Float64[np.ndarray, "m cells 3"], weights: Weights, space: Space
) -> tuple[float, Weights]:
    """Return the loss of a blend and its derivative by the weights."""
    mixed, slopes = _mix(values, cells.asked, weights + FLOOR, space)
    here = np.arange(len(cells.truth))
    weight = np.take(SEVERITY_WEIGHTS, cells.truth)
    p_true = mixed[here, cells.truth].clip(SMALLEST)
    loss = -(weight @ np.log(p_true)) / weight.sum()
    slope = -(slopes[:, here, cells.truth] @ (weight / p_true)) / weight.sum()
    if cells.any_severe:
        more_loss, more_slope = _any_severe(cells, mixed[:, SEVERE], slopes[:, :, SEVERE])
        loss, slope = loss + more_loss, slope + more_slope
    return float(loss), slope


def _mix(
    values: Float64[np.ndarray, "m cells 3"],
    asked: Bool[np.ndarray, "m cells"],
    weights: Weights,
    space: Space,
) -> tuple[Float64[np.ndarray, "cells 3"], Float64[np.ndarray, "m cells 3"]]:
    """Return the blended probabilities and their derivatives by the weights."""
    counted = weights[:, None] * asked
    total = counted.sum(axis=0)
    mean = np.einsum("mc,mcs->cs", counted / total, values)
    slopes = (values - mean) * (asked / total)[..., None]
    if space == "probability":
        return mean, slopes
    mixed = np.exp(mean - mean.max(axis=1, keepdims=True))
    mixed /= mixed.sum(axis=1, keepdims=True)
    slopes -= np.einsum("cs,mcs->mc", mixed, slopes)[..., None]
    return mixed, mixed * slopes


def _any_severe(
    cells: GroupCells,
    severe: Float64[np.ndarray, " cells"],
    slopes: Float64[np.ndarray, "m cells"],
) -> tuple[float, Weights]:
    """Return the loss of "any cell of the study is severe" and its derivative."""
    order = np.lexsort((severe, cells.study))
    last = np.flatnonzero(np.diff(cells.study[order], append=-1))
    worst_cell = order[last]
    starts = np.concatenate([[0], last[:-1] + 1])
    worst = np.maximum.reduceat(cells.truth[order], starts)
    q = severe[worst_cell].clip(SMALLEST, 1 - SMALLEST)
    weight = np.take(SEVERITY_WEIGHTS, worst)
    so = worst == SEVERE
    loss = -(weight @ np.where(so, np.log(q), np.log1p(-q))) / weight.sum()
    by_q = -weight * np.where(so, 1 / q, -1 / (1 - q)) / weight.sum()
    return float(loss), np.asarray(slopes[:, worst_cell] @ by_q)
