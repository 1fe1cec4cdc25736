"""In which order, and how often, the samples of an epoch come."""

from __future__ import annotations

from typing import Literal, assert_never

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import BaseModel, ConfigDict, PositiveFloat

from lumbar.train.plan.samples import Samples

Order = Int64[np.ndarray, " m"]
"""Indices into samples, in the order of an epoch."""


SampledBy = Literal["series", "study", "severity"]


class SamplingConfig(BaseModel):
    """How an epoch is drawn.

    ``by`` is ``series``: every sample once; ``study``: every study once, by one of its samples at
    random; or ``severity``: as many as there are samples, the severe more often, in proportion to
    the greatest of ``weights`` (normal/mild, moderate, severe) over the cells that a sample shows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    by: SampledBy = "series"
    weights: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 2.0, 4.0)


def epoch_size(samples: Samples, config: SamplingConfig) -> int:
    """Return how many samples an epoch has, the same for every epoch."""
    match config.by:
        case "study":
            return len(set(samples.study_id))
        case "series" | "severity":
            return len(samples)
        case _:
            assert_never(config.by)


def sample_order(samples: Samples, config: SamplingConfig, rng: np.random.Generator) -> Order:
    """Draw the order of an epoch."""
    match config.by:
        case "study":
            return rng.permutation(_one_of_each_study(samples, rng))
        case "severity":
            return rng.permutation(_in_proportion(samples.worst(config.weights), rng.random()))
        case "series":
            return rng.permutation(len(samples))
        case _:
            assert_never(config.by)


def _one_of_each_study(samples: Samples, rng: np.random.Generator) -> Order:
    of_study: dict[str, list[int]] = {}
    for index, study_id in enumerate(samples.study_id):
        of_study.setdefault(study_id, []).append(index)
    return np.array([rng.choice(indices) for indices in of_study.values()], np.int64)


def _in_proportion(weight: Float64[np.ndarray, " n"], start: float) -> Order:
    """Repeat each index in proportion to its weight, n in all.

    Systematic sampling: a comb of n teeth is laid over the weights, so that each index comes as
    often as its share says, rounded down or up, and as its share on average.
    """
    edges = np.cumsum(weight) / weight.sum() * len(weight)
    teeth = np.arange(len(weight)) + start
    return np.minimum(np.searchsorted(edges, teeth, side="right"), len(weight) - 1)
