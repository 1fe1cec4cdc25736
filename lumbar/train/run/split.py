"""Who is trained on and who is held out: whole studies, never single series; whole patients."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
    """What to train on and what is held out, and the labels of both sides' studies.

    ``train_studies`` are all studies to train on, whichever series they have, and
    ``train_severity`` is theirs; ``held_out_severity`` is that of those held out that have a series
    of the wanted types.
    """

    train: Samples
    held_out: Samples
    train_studies: tuple[str, ...]
    train_severity: Severities
    held_out_severity: dict[str, np.ndarray]


def split_samples(cache: Cache, config: RunConfig) -> SampleSplit:
    """Deal the labelled studies of a cache into folds and pick what a configuration wants of them.

    The folds are those of all labelled studies, so that runs of different series types with one
    split hold out the same studies. What is excluded is not trained on; held-out studies are scored
    with all their labels. Discs to train on lie where they are annotated; those held out are to be
    located first, so that here their whole series are held out.

    Raises
    ------
    InputError
        If there are no labels, too few studies, an excluded study is unknown, or one side has no
        series.
    """
    if config.sample != "study":
        cache.rows_of(config.series_type)  # says what the cache holds instead
    study_ids, severity = _labelled(cache)
    fold_of = _dealt(cache, study_ids, severity, config.split)
    cells_out = _excluded_cells(cache, config.split)
    out = set(config.split.exclude_studies)
    _check_known(cache, out | cells_out.keys(), where="split")
    inside = [s for s in study_ids if fold_of[s] != config.split.fold and s not in out]
    outside = [s for s in study_ids if fold_of[s] == config.split.fold]
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
    by_study = dict(zip(study_ids, severity, strict=True))
    for study_id, cells in cells_out.items():
        if study_id in inside:
            by_study[study_id] = _unknown_at(by_study[study_id], cells)
    return SampleSplit(
        train=train,
        held_out=held_out,
        train_studies=tuple(inside),
        train_severity=np.stack([by_study[s] for s in inside]),
        held_out_severity={s: by_study[s] for s in sorted(set(held_out.study_id))},
    )


def find_samples(
    cache: Cache,
    config: RunConfig,
    studies: Collection[str] | None = None,
    *,
    places: Float64[np.ndarray, "n 5 3"] | None = None,
) -> Samples:
    """Return the samples that a configuration draws from: series, discs or whole studies.

    ``studies`` leaves out all others. Discs lie where they are annotated, or at ``places``, voxels
    (d, h, w) of the five discs of each of the series that `find_rows` names.
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


def _labelled(cache: Cache) -> tuple[list[str], Severities]:
    """Return the studies of which anything is known, and their severities."""
    severity = severities_of(cache.labels)
    labelled = (severity != UNKNOWN).any(axis=1)
    ids = cache.labels["study_id"].to_list()
    return [s for s, known in zip(ids, labelled, strict=True) if known], severity[labelled]


def _dealt(
    cache: Cache, study_ids: Sequence[str], severity: Severities, config: SplitConfig
) -> dict[str, int]:
    """Return the fold of every labelled study."""
    if len(study_ids) < config.folds or config.fold >= config.folds:
        raise InputError(
            what="cannot split the studies",
            where=cache.root,
            got=f"{len(study_ids)} labelled studies, fold {config.fold} of {config.folds}",
            expected="a labelled study a fold or more, and a fold below their number",
            cure="preprocess with the label CSV beside the images, or set split.folds",
        )
    return folds(
        study_ids, severity, n_folds=config.folds, seed=config.seed, patients=cache.patients
    )


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
