"""The 25 severities of a study, sampled at the rates of the RSNA 2024 labels."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from jaxtyping import Int8

from lumbar.cache.names import CONDITION_GROUPS, CONDITIONS, LEVELS

UNKNOWN = -1

SEVERITY_RATES = {
    "spinal": (0.878, 0.075, 0.048),
    "foraminal": (0.780, 0.181, 0.040),
    "subarticular": (0.714, 0.190, 0.096),
}
"""Normal/mild, moderate, severe: counted from the labels of the 1,975 public studies."""

LEVEL_FACTORS = (0.35, 0.70, 1.10, 1.70, 1.15)
"""Rate of moderate and severe at each level relative to the mean of all levels."""

STUDY_VARIANCE = 0.3
"""Share of the latent variance that the cells of one group share within a study."""

SPARSE_STUDY_RATE = 0.075
SPARSE_LEVELS_WEIGHTS = (0.5, 0.4, 0.1)
"""How often the upper one, two or three levels lack subarticular grades in sparse studies."""

EMPTY_CELL_RATE = 0.0019
"""Rate of any other cell without a grade: 55 of 29,625."""

Grades = Int8[np.ndarray, "5 5"]
"""Severity index 0, 1, 2 by condition and level; in labels also `UNKNOWN`."""


def sample_severities(rng: np.random.Generator) -> Grades:
    """Sample the true severity of every condition and level.

    Within a study, the levels of a group of conditions share a latent factor; the groups are
    independent. The rates are `SEVERITY_RATES`.
    """
    grades = np.zeros((len(CONDITIONS), len(LEVELS)), np.int8)
    for group, conditions in CONDITION_GROUPS.items():
        shared = rng.standard_normal()
        own = rng.standard_normal((len(conditions), len(LEVELS)))
        latent = np.sqrt(STUDY_VARIANCE) * shared + np.sqrt(1 - STUDY_VARIANCE) * own
        moderate, severe = _thresholds(group)
        grades[list(conditions)] = (latent > moderate).astype(np.int8) + (latent > severe)
    return grades


def hide_grades(rng: np.random.Generator, grades: Grades) -> Grades:
    """Return the grades as labels: about 1.2 % of the cells become `UNKNOWN`.

    Nine of ten are subarticular cells of upper levels; no study becomes unknown as a whole.
    """
    unknown = rng.random(grades.shape) < EMPTY_CELL_RATE
    sparse = rng.random() < SPARSE_STUDY_RATE
    n_upper = 1 + int(rng.choice(len(SPARSE_LEVELS_WEIGHTS), p=SPARSE_LEVELS_WEIGHTS))
    if sparse:
        unknown[list(CONDITION_GROUPS["subarticular"]), :n_upper] = True
    unknown[0] &= not unknown.all()
    return np.where(unknown, np.int8(UNKNOWN), grades)


def _thresholds(group: str) -> tuple[np.ndarray, np.ndarray]:
    """Latent values above which a level is at least moderate and severe, by level."""
    normal, moderate, severe = SEVERITY_RATES[group]
    total = normal + moderate + severe
    quantile = NormalDist().inv_cdf
    return (
        np.array([quantile(1 - f * (moderate + severe) / total) for f in LEVEL_FACTORS]),
        np.array([quantile(1 - f * severe / total) for f in LEVEL_FACTORS]),
    )
