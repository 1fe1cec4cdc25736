"""What there is to train on: one row a cached series, with its geometry and its grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from lumbar.cache.labels import UNKNOWN, Severities, severities_of
from lumbar.cache.names import N_CELLS
from lumbar.cache.store import Cache


@dataclass(frozen=True, slots=True)
class SeriesSet:
    """The series of a cache that a plan draws from, in plain numbers.

    ``row`` are row numbers of the cache's series table; ``shape`` is (depth, height, width);
    ``spacing_mm`` is (height, width); ``lateral_axis`` is the array axis (0, 1 or 2) that runs most
    nearly along the patient's right-left axis, by the affine; ``severity`` is 0, 1, 2 or `UNKNOWN`
    for each of the 25 cells.
    """

    row: Int64[np.ndarray, " n"]
    study_id: tuple[str, ...]
    shape: Int64[np.ndarray, "n 3"]
    spacing_mm: Float64[np.ndarray, "n 2"]
    lateral_axis: Int64[np.ndarray, " n"]
    severity: Severities

    def __len__(self) -> int:
        return len(self.study_id)

    @classmethod
    def from_cache(cls, cache: Cache, rows: Sequence[int]) -> SeriesSet:
        """Gather the named rows of a cache's series table; a study without labels is unknown."""
        table = cache.series[list(rows)]
        affine = np.array(table["affine"].to_list(), np.float64).reshape(-1, 4, 4)
        # Unit vectors: a tilted axial step of 4 mm has more of x in it than a pixel of 0.5 mm.
        directions = affine[:, :3, :3] / np.linalg.norm(affine[:, :3, :3], axis=1, keepdims=True)
        grades = dict(
            zip(cache.labels["study_id"].to_list(), severities_of(cache.labels), strict=True)
        )
        unknown = np.full(N_CELLS, UNKNOWN, np.int8)
        studies = tuple(table["study_id"].to_list())
        return cls(
            row=np.asarray(rows, np.int64),
            study_id=studies,
            shape=table.select("depth", "height", "width").to_numpy().astype(np.int64),
            spacing_mm=table.select("spacing_h_mm", "spacing_w_mm").to_numpy().astype(np.float64),
            lateral_axis=np.abs(directions[:, 0]).argmax(axis=1),
            severity=np.array([grades.get(s, unknown) for s in studies], np.int8).reshape(-1, 25),
        )
