"""The usual place of every cell in each series type: where attention starts before training.

In-plane places are millimetres from the image centre (down, to the image's right); the sagittal
ones are the medians of the annotated points of the RSNA 2024 data set at a field of view of 290 mm.
Places along the stack are fractions of it: a sagittal stack of 75 mm runs from the patient's right
to the left, an axial one from L1/L2 down.
"""

from __future__ import annotations

from dataclasses import dataclass

from lumbar.cache.names import CONDITIONS, LEVELS, SeriesType


@dataclass(frozen=True, slots=True)
class Region:
    """A place in the plane: centre and spread in millimetres, down and to the image's right."""

    centre_mm: tuple[float, float]
    spread_mm: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The regions of a series type, and the region and the place in the stack of each cell.

    The cells are all 25, or the five conditions of a disc.
    """

    regions: tuple[Region, ...]
    cell_region: tuple[int, ...]
    cell_position: tuple[float, ...]
    position_spread: float


_SAGITTAL_DOWN_MM = (-64.0, -32.0, 3.0, 35.0, 64.0)
_SAGITTAL_POSITION = {"spinal": 0.5, "left": 0.74, "right": 0.26}
_AXIAL_REGIONS = {"spinal": 0, "left": 1, "right": 2}


def _side(condition: str) -> str:
    return condition.split("_", maxsplit=1)[0]


def _axial_regions(*, down_mm: float) -> tuple[Region, ...]:
    return tuple(Region((down_mm, across), (15.0, 12.0)) for across in (0.0, 10.0, -10.0))


_SAGITTAL = Anatomy(
    regions=tuple(Region((down, 10.0), (12.0, 25.0)) for down in _SAGITTAL_DOWN_MM),
    cell_region=tuple(level for _ in CONDITIONS for level in range(len(LEVELS))),
    cell_position=tuple(_SAGITTAL_POSITION[_side(c)] for c in CONDITIONS for _ in LEVELS),
    position_spread=0.12,
)
_AXIAL = Anatomy(
    regions=_axial_regions(down_mm=5.0),
    cell_region=tuple(_AXIAL_REGIONS[_side(c)] for c in CONDITIONS for _ in LEVELS),
    cell_position=tuple((level + 0.5) / len(LEVELS) for _ in CONDITIONS for level in range(5)),
    position_spread=0.1,
)

ANATOMY = {
    SeriesType.SAGITTAL_T1: _SAGITTAL,
    SeriesType.SAGITTAL_T2: _SAGITTAL,
    SeriesType.AXIAL_T2: _AXIAL,
}

_DISC_SAGITTAL = Anatomy(
    regions=(Region((0.0, 0.0), (12.0, 25.0)),),
    cell_region=(0,) * len(CONDITIONS),
    cell_position=tuple(_SAGITTAL_POSITION[_side(c)] - 0.5 for c in CONDITIONS),
    position_spread=0.12,
)
_DISC_AXIAL = Anatomy(
    regions=_axial_regions(down_mm=0.0),
    cell_region=tuple(_AXIAL_REGIONS[_side(c)] for c in CONDITIONS),
    cell_position=(0.0,) * len(CONDITIONS),
    position_spread=0.05,
)

DISC_ANATOMY = {
    SeriesType.SAGITTAL_T1: _DISC_SAGITTAL,
    SeriesType.SAGITTAL_T2: _DISC_SAGITTAL,
    SeriesType.AXIAL_T2: _DISC_AXIAL,
}
"""For crops around a disc: in-plane places relative to its middle, slices to the present ones'."""
