"""One generated study: sampled, rendered, and written with its rows of the CSV files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from lumbar.cache.names import LEVELS, SHOWN_CONDITIONS, SeriesType
from lumbar.synth.anatomy import SIDES, Phantom, sample_anatomy
from lumbar.synth.dicom import sample_encoding, series_header, to_stored, write_instance
from lumbar.synth.geometry import Series, Stack, sample_series
from lumbar.synth.render import make_scene, render_slice
from lumbar.synth.severity import UNKNOWN, Grades, hide_grades, sample_severities

ANNOTATOR_SPREAD_MM = 0.8
MISSING_POINT_RATE = 0.004
"""In the public data 146 grades have no point, and 117 spinal points are missing."""

FIRST_STUDY_ID = 100_000_000
STUDY_IDS = 999_983
"""A prime, so that steps of `STUDY_ID_STEP` reach every id once."""
STUDY_ID_STEP = 618_034

MAX_SERIES_ID = 4_294_967_295

_GRADES, _ANATOMY, _GEOMETRY, _LABELS, _SCENE, _ENCODING = range(6)
"""Streams of random numbers, one per purpose, so that no purpose shifts another's."""

Rendered = tuple[Stack, int, Float32[np.ndarray, "rows columns"]]


@dataclass(frozen=True)
class LabelPoint:
    """One row of ``train_label_coordinates.csv``."""

    series_id: int
    instance_number: int
    condition: int
    level: int
    x: float
    y: float


@dataclass(frozen=True)
class WrittenStudy:
    """The rows of a written study in the CSV files."""

    study_id: int
    grades: Grades
    """As in the labels: unknown cells are -1."""
    series: tuple[tuple[int, SeriesType], ...]
    points: tuple[LabelPoint, ...]
    n_files: int
    nbytes: int


@dataclass(frozen=True)
class SampledStudy:
    """All that is sampled of a study but its pixels, which come from its generators."""

    study_id: int
    entropy: tuple[int, ...]
    grades: Grades
    """The true severities."""
    anatomy: Phantom
    series: tuple[Series, ...]

    def generator(self, stream: int, *keys: int) -> np.random.Generator:
        """Return the generator of one purpose, independent of all others."""
        return np.random.default_rng([*self.entropy, stream, *keys])


def sample_study(
    seed: int,
    index: int,
    *,
    test: bool,
    wanted: tuple[SeriesType, ...],
    max_matrix: int,
    grades: Grades | None = None,
) -> SampledStudy:
    """Sample study `index` of a seed; with `grades`, the same patient with these findings."""
    entropy = (seed, int(test), index)
    if grades is None:
        grades = sample_severities(np.random.default_rng([*entropy, _GRADES]))
    anatomy = sample_anatomy(np.random.default_rng([*entropy, _ANATOMY]), grades)
    series = sample_series(
        np.random.default_rng([*entropy, _GEOMETRY]), anatomy, wanted, max_matrix
    )
    return SampledStudy(_study_id(index, test=test), entropy, grades, anatomy, series)


def render_series(study: SampledStudy, number: int, *, noise: float) -> Iterator[Rendered]:
    """Render the slices of one series of a study in the order of their instance numbers."""
    series = study.series[number]
    rng = study.generator(_SCENE, number)
    scene = make_scene(rng, study.anatomy, series, noise)
    for stack in series.stacks:
        for index in range(stack.n_slices):
            yield stack, index, render_slice(rng, scene, stack, index)


def write_study(images: Path, study: SampledStudy, *, noise: float) -> WrittenStudy:
    """Write a study below ``images/<study_id>`` and return its rows of the CSV files."""
    rng = study.generator(_LABELS)
    labels = hide_grades(rng, study.grades)
    ids = [int(value) for value in rng.choice(MAX_SERIES_ID, len(study.series), replace=False)]
    sizes: list[int] = []
    points: list[LabelPoint] = []
    for number, series_id in enumerate(ids):
        folder = images / str(study.study_id) / str(series_id)
        folder.mkdir(parents=True)
        sizes += _write_series(folder, study, number, noise)
        points += _annotate(rng, study.anatomy, labels, series_id, study.series[number])
    kinds = [series.series_type for series in study.series]
    return WrittenStudy(
        study_id=study.study_id,
        grades=labels,
        series=tuple(sorted(zip(ids, kinds, strict=True))),
        points=tuple(points),
        n_files=len(sizes),
        nbytes=sum(sizes),
    )


def _study_id(index: int, *, test: bool) -> int:
    """Return an id that is unique in the data set."""
    return FIRST_STUDY_ID + (2 * index + int(test) + 1) * STUDY_ID_STEP % STUDY_IDS


def _write_series(folder: Path, study: SampledStudy, number: int, noise: float) -> list[int]:
    """Write the files of one series; return their sizes in bytes."""
    series = study.series[number]
    encoding = sample_encoding(study.generator(_ENCODING, number))
    header = series_header(study.study_id, int(folder.name), series, encoding)
    return [
        write_instance(
            folder,
            header,
            to_stored(image, encoding),
            stack=stack,
            index=index,
            instance=instance,
            transfer_syntax=encoding.transfer_syntax,
        )
        for instance, (stack, index, image) in enumerate(
            render_series(study, number, noise=noise), start=1
        )
    ]


def _annotate(
    rng: np.random.Generator, anatomy: Phantom, labels: Grades, series_id: int, series: Series
) -> list[LabelPoint]:
    """Return points of visible graded findings, as a person marks them: inexact, some missing."""
    points = []
    first_instance = np.cumsum([1, *(stack.n_slices for stack in series.stacks)])
    for condition in SHOWN_CONDITIONS[series.series_type]:
        side = 0 if condition == 0 else SIDES[(condition - 1) % 2]
        for level in range(len(LEVELS)):
            column_shift, row_shift = rng.normal(0, ANNOTATOR_SPREAD_MM, 2)
            forgotten = rng.random() < MISSING_POINT_RATE
            graded = labels[condition, level] != UNKNOWN
            if forgotten or not graded or (side and side not in series.sides):
                continue
            stack, index, column, row = series.locate(anatomy.landmark(condition, level))
            points.append(
                LabelPoint(
                    series_id=series_id,
                    instance_number=int(first_instance[stack]) + index,
                    condition=condition,
                    level=level,
                    x=column + column_shift / series.column_spacing,
                    y=row + row_shift / series.row_spacing,
                )
            )
    return points
