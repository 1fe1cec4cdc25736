"""Who is trained on and who is held out: whole studies, never single series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN, Severities, severities_of
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.config import SplitConfig
from lumbar.train.samples import Samples
from lumbar.train.split import folds


@dataclass(frozen=True, slots=True)
class Split:
    """The series to train on and those held out, and the labels of both sides' studies."""

    train: Samples
    held_out: Samples
    train_severity: Severities
    held_out_severity: dict[str, np.ndarray]


def split_series(cache: Cache, series_type: SeriesType, config: SplitConfig) -> Split:
    """Deal the labelled studies of a cache into folds and pick the series of one type.

    The folds are those of all labelled studies, so that runs of different series types with one
    split hold out the same studies.

    Raises
    ------
    InputError
        If there are no labels, too few studies, or one side has no series.
    """
    severity = severities_of(cache.labels)
    labelled = (severity != UNKNOWN).any(axis=1)
    study_ids = [s for s, known in zip(cache.labels["study_id"], labelled, strict=True) if known]
    severity = severity[labelled]
    if len(study_ids) < config.folds or config.fold >= config.folds:
        raise InputError(
            what="cannot split the studies",
            where=cache.root,
            got=f"{len(study_ids)} labelled studies, fold {config.fold} of {config.folds}",
            expected="a labelled study a fold or more, and a fold below their number",
            cure="preprocess with the label CSV beside the images, or set split.folds",
        )
    fold_of = folds(study_ids, severity, n_folds=config.folds, seed=config.seed)
    rows = cache.rows_of(series_type)
    studies = cache.series["study_id"].to_list()
    train = [r for r in rows if fold_of.get(studies[r], config.fold) != config.fold]
    held_out = [r for r in rows if fold_of.get(studies[r]) == config.fold]
    if not train or not held_out:
        raise InputError(
            what="one side of the split has no series",
            where=cache.root,
            got=f"{len(train)} to train on, {len(held_out)} held out",
            expected="at least one each",
            cure="preprocess more studies or choose another split.fold",
        )
    by_study = dict(zip(study_ids, severity, strict=True))
    inside = np.array([fold_of[s] != config.fold for s in study_ids])
    held_out_ids = sorted({studies[r] for r in held_out})
    return Split(
        train=Samples.of_series(cache, train),
        held_out=Samples.of_series(cache, held_out),
        train_severity=severity[inside],
        held_out_severity={s: by_study[s] for s in held_out_ids},
    )
