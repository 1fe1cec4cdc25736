"""The 25 severities of a study, drawn at the rates of the RSNA 2024 labels."""

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
"""How much more often than the mean a level is moderate or severe; their mean is 1."""

STUDY_VARIANCE = 0.3
"""Share of the latent variance that the cells of one group have in common within a study."""

SPARSE_STUDY_RATE = 0.075
SPARSE_LEVELS_WEIGHTS = (0.5, 0.4, 0.1)
"""How often the upper one, two or three levels lack subarticular grades in such a study."""

EMPTY_CELL_RATE = 0.0019
"""Rate of any other cell without a grade: 55 of 29,625."""

Grades = Int8[np.ndarray, "5 5"]
"""Severity index 0, 1, 2 by condition and level, or `UNKNOWN` where it is a table of labels."""


def draw_severities(rng: np.random.Generator) -> Grades:
    """Draw the true severity of every condition and level.

    Levels share a latent factor within a group of conditions and a study, and the groups are
    independent, so one kind of finding says nothing of another. The rates are `SEVERITY_RATES`.
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
    """Return the grades as an annotator left them: about 1.2 % of the cells are `UNKNOWN`.

    Nine of ten are subarticular, at the upper levels; a whole study is never unknown.
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
