"""Split the labelled studies of a cache into those to train on and those held out, by patient."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN, Severities, severities_of
from lumbar.cache.names import CELLS
from lumbar.cache.store import Cache
from lumbar.train.plan.folds import SplitConfig, folds
from lumbar.train.plan.samples import Samples
from lumbar.train.run.config import RunConfig


@dataclass(frozen=True, slots=True)
class SampleSplit:
    """The samples of both sides of a split, and the labels of both sides' studies.

    Of a disc run ``train`` are the annotated discs, and ``held_out`` the series in which discs are
    to be located. ``train_studies`` are all studies to train on, also those without a series of the
    wanted types, and ``train_severity`` is theirs; ``held_out_severity`` is that of the studies in
    ``held_out``, by study.
    """

    train: Samples
    held_out: Samples
    train_studies: tuple[str, ...]
    train_severity: Severities
    held_out_severity: dict[str, np.ndarray]


def split_samples(cache: Cache, config: RunConfig) -> SampleSplit:
    """Divide the labelled studies of a cache into folds, and find the samples of both sides.

    The folds are those of all labelled studies, so that runs of different series types with one
    split hold out the same studies. What is excluded is not trained on; held-out studies are scored
    with all their labels.

    Raises
    ------
    InputError
        If there are no labels, too few studies, an excluded study is unknown, or one side has no
        series.
    """
    if config.sample != "study":
        cache.rows_of(config.series_type)  # an error names the types that the cache has
    fold_of, severity_of = deal_folds(cache, config.split), _labelled(cache)
    cells_out = _excluded_cells(cache, config.split)
    out = set(config.split.exclude_studies)
    _check_known(cache, out | cells_out.keys(), where="split")
    inside = [s for s, fold in fold_of.items() if fold != config.split.fold and s not in out]
    outside = [s for s, fold in fold_of.items() if fold == config.split.fold]
    train = _without(find_samples(cache, config, inside), cells_out)
    held_out = (
        Samples.of_series(cache, find_rows(cache, config, outside))
        if config.sample == "disc"
        else find_samples(cache, config, outside)
    )
    if not len(train) or not len(held_out):
        raise InputError(
            what="one side of the split has no series",
            where=cache.root,
            got=f"{len(train)} to train on, {len(held_out)} held out",
            expected="at least one each",
            cure="preprocess more studies or choose another split.fold",
        )
    for study_id in cells_out.keys() & set(inside):
        severity_of[study_id] = _unknown_at(severity_of[study_id], cells_out[study_id])
    return SampleSplit(
        train=train,
        held_out=held_out,
        train_studies=tuple(inside),
        train_severity=np.stack([severity_of[s] for s in inside]),
        held_out_severity={s: severity_of[s] for s in sorted(set(held_out.study_id))},
    )


def deal_folds(cache: Cache, config: SplitConfig) -> dict[str, int]:
    """Return the fold of every labelled study of a cache.

    Raises
    ------
    InputError
        If there are fewer labelled studies than folds, or ``fold`` is not below their number.
    """
    severity_of = _labelled(cache)
    if len(severity_of) < config.folds or config.fold >= config.folds:
        raise InputError(
            what="cannot split the studies",
            where=cache.root,
            got=f"{len(severity_of)} labelled studies, fold {config.fold} of {config.folds}",
            expected="a labelled study per fold or more, and a fold below their number",
            cure="preprocess with the label CSV beside the images, or set split.folds",
        )
    fold_of = folds(
        list(severity_of),
        np.stack(list(severity_of.values())),
        n_folds=config.folds,
        seed=config.seed,
        patients=cache.patients,
    )
    return {study_id: fold_of[study_id] for study_id in severity_of}


def find_samples(
    cache: Cache,
    config: RunConfig,
    studies: Collection[str] | None = None,
    *,
    places: Float64[np.ndarray, "n 5 3"] | None = None,
) -> Samples:
    """Return the samples of a configuration: series, discs or whole studies.

    ``studies`` leaves out all others. Discs lie where they are annotated, or at ``places``: voxels
    (d, h, w) of the five discs of each of the series that `find_rows` returns.
    """
    if config.sample == "study":
        named = cache.series["study_id"].unique().sort().to_list()
        wanted = named if studies is None else sorted(set(studies).intersection(named))
        return Samples.of_studies(cache, wanted, config.series_types)
    rows = find_rows(cache, config, studies)
    if config.sample == "series":
        return Samples.of_series(cache, rows)
    return (
        Samples.of_discs(cache, rows) if places is None else Samples.of_places(cache, rows, places)
    )


def find_rows(cache: Cache, config: RunConfig, studies: Collection[str] | None = None) -> list[int]:
    """Return the rows of the series of a configuration's type, of some studies or of all."""
    types = [str(kind) for kind in config.series_types]
    wanted = cache.series["series_type"].is_in(types)
    if studies is not None:
        wanted &= cache.series["study_id"].is_in(list(studies))
    return [int(row) for row in wanted.arg_true()]


def _labelled(cache: Cache) -> dict[str, np.ndarray]:
    """Return the severities of the studies with a label, by study."""
    severity = severities_of(cache.labels)
    labelled = (severity != UNKNOWN).any(axis=1)
    return dict(zip(cache.labels["study_id"].filter(labelled), severity[labelled], strict=True))


def _excluded_cells(cache: Cache, config: SplitConfig) -> dict[str, list[int]]:
    """Return the cells that are not trained on, by study."""
    excluded: dict[str, list[int]] = {}
    for entry in config.exclude_cells:
        study_id, _, cell = entry.rpartition("/")
        if cell not in CELLS:
            raise InputError(
                what="unknown cell to exclude",
                where="split.exclude_cells",
                got=repr(entry),
                expected=f"STUDY/CELL, the cell being a column of train.csv such as {CELLS[0]}",
                cure="correct or remove it",
            )
        excluded.setdefault(study_id, []).append(CELLS.index(cell))
    return excluded


def _check_known(cache: Cache, study_ids: Collection[str], *, where: str) -> None:
    known = set(cache.labels["study_id"]).union(cache.series["study_id"])
    unknown = sorted(set(study_ids) - known)
    if unknown:
        raise InputError(
            what="studies to exclude that the cache does not know",
            where=where,
            got=", ".join(unknown[:3]),
            expected=f"studies of {cache.root}",
            cure="correct or remove them",
        )


def _without(samples: Samples, cells_out: dict[str, list[int]]) -> Samples:
    """Return the samples with the excluded cells unknown."""
    severity = samples.severity.copy()
    for row, study_id in enumerate(samples.study_id):
        if study_id in cells_out:
            severity[row] = _unknown_at(severity[row], cells_out[study_id])
    return replace(samples, severity=severity)


def _unknown_at(severity: np.ndarray, cells: list[int]) -> np.ndarray:
    changed = severity.copy()
    changed[cells] = UNKNOWN
    return changed
