"""Conditions, levels, severities and series types: the names of all tables and tensors.

The order of the 25 cells and 75 targets is fixed here: condition (as in ``train.csv``), then level,
then severity. Cell ``c * 5 + l``; target ``(c * 5 + l) * 3 + s``.
"""

from __future__ import annotations

from enum import StrEnum

CONDITIONS = (
    "spinal_canal_stenosis",
    "left_neural_foraminal_narrowing",
    "right_neural_foraminal_narrowing",
    "left_subarticular_stenosis",
    "right_subarticular_stenosis",
)
LEVELS = ("l1_l2", "l2_l3", "l3_l4", "l4_l5", "l5_s1")
SEVERITIES = ("normal_mild", "moderate", "severe")

N_CELLS = len(CONDITIONS) * len(LEVELS)
N_SEVERITIES = len(SEVERITIES)
SEVERE = SEVERITIES.index("severe")

SEVERITY_TEXTS = ("Normal/Mild", "Moderate", "Severe")
"""How ``train.csv`` writes the severities; an empty cell is unknown."""

CONDITION_GROUPS: dict[str, tuple[int, ...]] = {
    "spinal": (0,),
    "foraminal": (1, 2),
    "subarticular": (3, 4),
}
"""The parts of the metric: name -> indices into `CONDITIONS`."""

GROUP_CELLS: dict[str, list[int]] = {
    name: [c * len(LEVELS) + level for c in conditions for level in range(len(LEVELS))]
    for name, conditions in CONDITION_GROUPS.items()
}
"""The parts of the metric: name -> indices into the 25 cells."""


class SeriesType(StrEnum):
    """What a series shows: its plane and its weighting."""

    SAGITTAL_T1 = "sagittal_t1"
    SAGITTAL_T2 = "sagittal_t2"
    AXIAL_T2 = "axial_t2"
    OTHER = "other"


SERIES_TYPES = tuple(SeriesType)
"""Arrays hold indices into this tuple."""

SERIES_DESCRIPTIONS = {
    "Sagittal T1": SeriesType.SAGITTAL_T1,
    "Sagittal T2/STIR": SeriesType.SAGITTAL_T2,
    "Axial T2": SeriesType.AXIAL_T2,
}
"""The texts of ``*_series_descriptions.csv``."""

SHOWN_CONDITIONS: dict[SeriesType, tuple[int, ...]] = {
    SeriesType.SAGITTAL_T1: CONDITION_GROUPS["foraminal"],
    SeriesType.SAGITTAL_T2: CONDITION_GROUPS["spinal"],
    SeriesType.AXIAL_T2: CONDITION_GROUPS["subarticular"],
}
"""The conditions that are annotated on a series type: indices into `CONDITIONS`."""

CELLS = tuple(f"{condition}_{level}" for condition in CONDITIONS for level in LEVELS)
"""The 25 columns of ``train.csv``, in its order."""

TARGET_COLUMNS = tuple(f"{cell}_{severity}" for cell in CELLS for severity in SEVERITIES)
KNOWN_COLUMNS = tuple(f"{cell}_known" for cell in CELLS)

_EXCHANGED_CONDITIONS = (0, 2, 1, 4, 3)

EXCHANGED_CELLS = tuple(
    condition * len(LEVELS) + level
    for condition in _EXCHANGED_CONDITIONS
    for level in range(len(LEVELS))
)
"""Cell order after the patient's left and right are exchanged; its own inverse."""


def cell_index(condition: int, level: int) -> int:
    """Return the index of a cell, ``condition * 5 + level``."""
    return condition * len(LEVELS) + level
