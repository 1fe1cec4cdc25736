"""A whole data set of generated studies in the layout of the RSNA 2024 competition."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lumbar.cache.errors import InputError
from lumbar.cache.names import (
    CELLS,
    CONDITIONS,
    LEVELS,
    SERIES_DESCRIPTIONS,
    SEVERITIES,
    SEVERITY_TEXTS,
    SeriesType,
)
from lumbar.synth.severity import UNKNOWN
from lumbar.synth.study import STUDY_IDS, WrittenStudy, sample_study, write_study

DESCRIPTION_OF_TYPE = {kind: text for text, kind in SERIES_DESCRIPTIONS.items()}


class SynthConfig(BaseModel):
    """What to generate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    studies: int = Field(100, ge=0, le=STUDY_IDS // 2)
    """Studies with labels, in ``train_images``."""
    test_studies: int = Field(0, ge=0, le=STUDY_IDS // 2)
    """Studies in ``test_images``; their labels go to ``test_solution.csv``."""
    seed: int = Field(0, ge=0)
    series_types: tuple[SeriesType, ...] = Field(tuple(DESCRIPTION_OF_TYPE), min_length=1)
    """The series types to write."""
    noise: float = Field(0.03, ge=0, le=0.5)
    """Typical noise in each channel, as a share of the brightest tissue."""
    max_matrix: int = Field(512, ge=64, le=1024)
    """Most rows or columns of an image; larger ones get fewer, larger pixels."""


@dataclass(frozen=True)
class StudyWritten:
    """A study is on disk."""

    study_id: int
    n_files: int
    nbytes: int


@dataclass(frozen=True)
class _Job:
    images: Path
    index: int
    test: bool
    config: SynthConfig


def write_dataset(folder: Path, config: SynthConfig, *, workers: int) -> Iterator[StudyWritten]:
    """Write a data set; yield an event for each study, then write the CSV files.

    The same configuration gives the same bytes for any number of `workers`; 0 works in this
    process. Nothing is written before the first event is requested.

    Raises
    ------
    InputError
        If the folder is not empty, or an option is out of range.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            what="folder for generated studies",
            where=folder,
            got="a file" if folder.is_file() else "a folder that is not empty",
            expected="a new or empty folder",
            cure="name another folder, or remove this one",
        )
    if workers < 0:
        raise InputError(what="workers", got=workers, expected="0 or more")
    if SeriesType.OTHER in config.series_types:
        raise InputError(
            what="series types to generate",
            got=SeriesType.OTHER.value,
            expected=" or ".join(DESCRIPTION_OF_TYPE),
        )
    return _write(folder, config, workers)


def _write(folder: Path, config: SynthConfig, workers: int) -> Iterator[StudyWritten]:
    train = [
        _Job(folder / "train_images", i, test=False, config=config) for i in range(config.studies)
    ]
    test = [
        _Job(folder / "test_images", i, test=True, config=config)
        for i in range(config.test_studies)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    written: list[WrittenStudy] = []
    for study in _run([*train, *test], workers):
        written.append(study)
        yield StudyWritten(study.study_id, study.n_files, study.nbytes)
    n_train = len(train)
    if train:
        _write_train_tables(folder, _by_id(written[:n_train]))
    if test:
        _write_test_tables(folder, _by_id(written[n_train:]))


def _run(jobs: list[_Job], workers: int) -> Iterator[WrittenStudy]:
    """Write the studies; the results come in the order of the jobs."""
    if workers == 0:
        yield from map(_do, jobs)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from pool.map(_do, jobs)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _do(job: _Job) -> WrittenStudy:
    study = sample_study(
        job.config.seed,
        job.index,
        test=job.test,
        wanted=job.config.series_types,
        max_matrix=job.config.max_matrix,
    )
    return write_study(job.images, study, noise=job.config.noise)


def _by_id(studies: list[WrittenStudy]) -> list[WrittenStudy]:
    return sorted(studies, key=lambda study: study.study_id)


def _write_train_tables(folder: Path, studies: list[WrittenStudy]) -> None:
    _write_labels(folder / "train.csv", studies)
    _write_descriptions(folder / "train_series_descriptions.csv", studies)
    rows = (
        (
            study.study_id,
            point.series_id,
            point.instance_number,
            CONDITIONS[point.condition].replace("_", " ").title(),
            LEVELS[point.level].replace("_", "/").upper(),
            point.x,
            point.y,
        )
        for study in studies
        for point in study.points
    )
    header = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")
    _write_csv(folder / "train_label_coordinates.csv", header, rows)


def _write_test_tables(folder: Path, studies: list[WrittenStudy]) -> None:
    _write_labels(folder / "test_solution.csv", studies)
    _write_descriptions(folder / "test_series_descriptions.csv", studies)
    third = 1 / len(SEVERITIES)
    row_ids = sorted(f"{study.study_id}_{cell}" for study in studies for cell in CELLS)
    rows = ((row_id, third, third, third) for row_id in row_ids)
    _write_csv(folder / "sample_submission.csv", ("row_id", *SEVERITIES), rows)


def _write_labels(path: Path, studies: list[WrittenStudy]) -> None:
    rows = (
        (
            study.study_id,
            *("" if grade == UNKNOWN else SEVERITY_TEXTS[grade] for grade in study.grades.ravel()),
        )
        for study in studies
    )
    _write_csv(path, ("study_id", *CELLS), rows)


def _write_descriptions(path: Path, studies: list[WrittenStudy]) -> None:
    rows = (
        (study.study_id, series_id, DESCRIPTION_OF_TYPE[kind])
        for study in studies
        for series_id, kind in study.series
    )
    _write_csv(path, ("study_id", "series_id", "series_description"), rows)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
