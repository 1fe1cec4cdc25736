"""The order of the samples of an epoch, and how often each comes."""

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
    """How the samples of an epoch are chosen.

    ``by`` is ``series``: every sample once; ``study``: one random sample per study; or
    ``severity``: as many as there are samples, each in proportion to its greatest of ``weights``
    (normal/mild, moderate, severe) over the cells that it shows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    by: SampledBy = "series"
    weights: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 2.0, 4.0)


def epoch_size(samples: Samples, config: SamplingConfig) -> int:
    """Return the number of samples per epoch."""
    match config.by:
        case "study":
            return len(set(samples.study_id))
        case "series" | "severity":
            return len(samples)
        case _:
            assert_never(config.by)


def sample_order(samples: Samples, config: SamplingConfig, rng: np.random.Generator) -> Order:
    """Sample the order of an epoch."""
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

    Systematic sampling: n equally spaced points over the cumulated weights. Each index comes as
    often as its share of n, rounded down or up.
    """
    edges = np.cumsum(weight) / weight.sum() * len(weight)
    points = np.arange(len(weight)) + start
    return np.minimum(np.searchsorted(edges, points, side="right"), len(weight) - 1)
