"""Predict every study of a cache with one model or several; every study gets all its 25 cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.ensemble.blend import BlendFile
from lumbar.train.ensemble.combine import Combined, combine, mean_member, own_series
from lumbar.train.evaluation.baselines import CellPrior, for_studies
from lumbar.train.inference.run_models import ModelsPredicted, StudiesPredicted, run_models
from lumbar.train.run.checkpoint import BEST, ModelBundle, load_checkpoint
from lumbar.train.run.folder import runs_in

NO_FILES = "no_files"
"""The reason of a rejected series that the CSV names and that has no files: nothing is broken."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Models whose predictions are combined: with equal weights, or as the members of a blend.

    ``members`` are the models of each member of the blend, as places in ``bundles``.
    """

    bundles: list[ModelBundle]
    blend: BlendFile | None = None
    members: tuple[tuple[int, ...], ...] = ()

    @property
    def prior(self) -> CellPrior:
        """The mean of the priors of the models' training studies."""
        return np.asarray(np.mean([bundle.prior for bundle in self.bundles], axis=0))


def load_models(runs: Sequence[Path]) -> list[ModelBundle]:
    """Load the best checkpoint of each run; a run is its folder or a checkpoint file.

    The folder of several folds stands for all of them.

    Raises
    ------
    MissingError, FormatError, InputError
        If one cannot be loaded, or they were trained on differently preprocessed caches.
    """
    runs = runs_in(runs)
    bundles = [load_checkpoint(run / BEST if run.is_dir() else run)[0] for run in runs]
    first = bundles[0].preprocess
    for run, bundle in zip(runs, bundles, strict=True):
        if bundle.preprocess != first:
            raise InputError(
                what="runs of differently preprocessed caches",
                where=run,
                got=_differing(bundle.preprocess, first),
                expected=_differing(first, bundle.preprocess),
                cure="predict with each alone",
            )
    return bundles


def load_blend(blend: BlendFile, folder: Path) -> Ensemble:
    """Load the runs of a blend that lies in a folder; raises as `load_models` does."""
    runs = blend.runs(folder)
    places = iter(range(sum(map(len, runs))))
    return Ensemble(
        load_models(list(chain.from_iterable(runs))),
        blend,
        tuple(tuple(next(places) for _ in member) for member in runs),
    )


def find_studies(cache: Cache) -> list[str]:
    """Return the studies of the cache and of its source, also those without a cached series."""
    tables = (cache.series, cache.labels)
    studies = {study_id for table in tables for study_id in table["study_id"].to_list()}
    return sorted(studies.union(cache.source_studies))


def predict(
    cache: Cache, ensemble: Ensemble, *, device: torch.device, threads: int, tta: bool = False
) -> Iterator[StudiesPredicted | Combined]:
    """Predict all studies of a cache; the last event holds the predictions.

    A model's prediction of a study is the mean over its series. `lumbar.train.ensemble.combine`
    decides which models' predictions are combined for each cell; without a blend they have equal
    weights. Cells without a model get the prior of the models' training studies.

    Raises
    ------
    InputError
        If the cache was not preprocessed as the models' caches were, or holds no study.
    LumbarError, OSError
        If it holds several studies and none of them can be read.
    """
    check_preprocessing(cache, ensemble.bundles)
    study_ids = find_studies(cache)
    if not study_ids:
        raise InputError(
            what="no study to predict",
            where=cache.root,
            got="a cache without any study",
            expected="one study or more",
            cure="name a cache that holds studies",
        )
    result: ModelsPredicted | None = None
    for event in run_models(
        cache, ensemble.bundles, study_ids, device=device, threads=threads, tta=tta
    ):
        if isinstance(event, ModelsPredicted):
            result = event
        else:
            yield event
    assert result is not None
    members = result.members
    if ensemble.blend is not None:
        members = [mean_member([members[place] for place in of]) for of in ensemble.members]
    yield combine(
        members,
        own_series(cache, study_ids),
        for_studies(ensemble.prior, len(study_ids)),
        blend=None if ensemble.blend is None else ensemble.blend.blend(),
        unreadable=result.unreadable | _rejected(cache, study_ids)[:, None],
    )


def _rejected(cache: Cache, study_ids: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Tell which studies had files of which none is cached."""
    cached = set(cache.series["study_id"].to_list())
    broken = cache.rejected.filter(cache.rejected["reason"] != NO_FILES)["study_id"].to_list()
    without = set(broken) - cached
    return np.array([study_id in without for study_id in study_ids])


def check_preprocessing(
    cache: Cache, bundles: Sequence[ModelBundle], trained_on: Sequence[Path] = ()
) -> None:
    """Raise `InputError` unless a cache was preprocessed as the models' caches were.

    ``trained_on`` are the models' caches, as far as they are known, for the message.
    """
    config = cache.voxel_config
    own = f", as in {', '.join(map(str, trained_on))}" if trained_on else ""
    for bundle in bundles:
        if bundle.preprocess != config:
            raise InputError(
                what="the cache was preprocessed otherwise than the model's",
                where=cache.root,
                got=_differing(config, bundle.preprocess),
                expected=_differing(bundle.preprocess, config) + own,
                cure="preprocess into another folder with the model's values, or use --src",
            )


def _differing(config: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the values of a configuration that differ in another one."""
    keys = sorted(key for key in config.keys() | other.keys() if config.get(key) != other.get(key))
    return ", ".join(f"{key} = {config.get(key)}" for key in keys)
