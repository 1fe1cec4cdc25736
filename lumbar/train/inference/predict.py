"""Predict every study of a cache with one model or several; no study goes without its 25 rows."""

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
from lumbar.train.ensemble.combine import Served, own_series, serve, together
from lumbar.train.evaluation.baselines import CellPrior, for_studies
from lumbar.train.inference.run_models import Heard, StudiesPredicted, listen
from lumbar.train.run.checkpoint import BEST, ModelBundle, load_checkpoint
from lumbar.train.run.folder import runs_in

NO_FILES = "no_files"
"""The reason of a rejected series that the CSV names and that has no files: nothing is broken."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What was predicted, each study once, and who served it."""

    study_ids: tuple[str, ...]
    served: Served

    @classmethod
    def of_parts(cls, parts: Sequence[Predictions]) -> Predictions:
        """Put the predictions of different studies together."""
        study_ids = tuple(chain.from_iterable(part.study_ids for part in parts))
        return cls(study_ids, Served.of_parts([part.served for part in parts]))

    def completed(self, study_ids: Sequence[str], ensemble: Ensemble) -> Predictions:
        """Return the predictions with the prior for those of some studies that are not there."""
        missing = tuple(sorted(set(study_ids) - set(self.study_ids)))
        absent = Predictions(missing, Served.of_prior(ensemble.prior, len(missing)))
        return Predictions.of_parts([self, absent])


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Models that predict together: each with one voice, or as the members of a blend.

    ``members`` are the models of each member of the blend, as places in ``models``.
    """

    models: list[ModelBundle]
    blend: BlendFile | None = None
    members: tuple[tuple[int, ...], ...] = ()

    @property
    def prior(self) -> CellPrior:
        """The mean of the priors of the models' training studies."""
        return np.asarray(np.mean([model.prior for model in self.models], axis=0))


def load_models(runs: Sequence[Path]) -> list[ModelBundle]:
    """Load the best checkpoint of each run; a run is its folder or a checkpoint file.

    The folder of several folds stands for all of them.

    Raises
    ------
    MissingError, FormatError, InputError
        If one cannot be loaded, or they were trained on differently preprocessed caches.
    """
    runs = runs_in(runs)
    models = [load_checkpoint(run / BEST if run.is_dir() else run)[0] for run in runs]
    for run, model in zip(runs, models, strict=True):
        if model.preprocess != models[0].preprocess:
            raise InputError(
                what="runs of differently preprocessed caches",
                where=run,
                got=_differing(model.preprocess, models[0].preprocess),
                expected=_differing(models[0].preprocess, model.preprocess),
                cure="predict with each alone",
            )
    return models


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
    """Return the studies of the cache and of its source, be none of their series cached."""
    tables = (cache.series, cache.labels)
    studies = {study_id for table in tables for study_id in table["study_id"].to_list()}
    return sorted(studies.union(cache.source_studies))


def predict(
    cache: Cache, ensemble: Ensemble, *, device: torch.device, threads: int, tta: bool = False
) -> Iterator[StudiesPredicted | Predictions]:
    """Predict all studies of a cache; the last event holds the predictions.

    A model's prediction of a study is the mean over its series. `lumbar.train.ensemble.combine`
    decides which models' predictions are combined for each cell; without a blend they have equal
    weights. Cells without a model get the prior of the models' training studies.

    Raises
    ------
    InputError
        If the cache was preprocessed otherwise than the models' or holds no study.
    LumbarError, OSError
        If it holds several studies and none of them can be read.
    """
    check_preprocessing(cache, ensemble.models)
    study_ids = find_studies(cache)
    if not study_ids:
        raise InputError(
            what="no study to predict",
            where=cache.root,
            got="a cache without any study",
            expected="one study or more",
            cure="name a cache that holds studies",
        )
    heard: Heard | None = None
    for event in listen(cache, ensemble.models, study_ids, device=device, threads=threads, tta=tta):
        if isinstance(event, Heard):
            heard = event
        else:
            yield event
    assert heard is not None
    voices = heard.voices
    if ensemble.blend is not None:
        voices = [together([voices[place] for place in member]) for member in ensemble.members]
    served = serve(
        voices,
        own_series(cache, study_ids),
        for_studies(ensemble.prior, len(study_ids)),
        blend=ensemble.blend.blend() if ensemble.blend is not None else None,
        unreadable=heard.unreadable | _rejected(cache, study_ids)[:, None],
    )
    yield Predictions(tuple(study_ids), served)


def _rejected(cache: Cache, study_ids: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Tell the studies of which there were files, and none of them is cached."""
    cached = set(cache.series["study_id"].to_list())
    broken = cache.rejected.filter(cache.rejected["reason"] != NO_FILES)["study_id"].to_list()
    without = set(broken) - cached
    return np.array([study_id in without for study_id in study_ids])


def check_preprocessing(
    cache: Cache, models: Sequence[ModelBundle], trained_on: Sequence[Path] = ()
) -> None:
    """Raise `InputError` where a cache was preprocessed otherwise than those of the models.

    ``trained_on`` are these caches, as far as they are known, for the message.
    """
    config = cache.voxel_config
    own = f", as in {', '.join(map(str, trained_on))}" if trained_on else ""
    for model in models:
        if model.preprocess != config:
            raise InputError(
                what="the cache was preprocessed otherwise than the model's",
                where=cache.root,
                got=_differing(config, model.preprocess),
                expected=_differing(model.preprocess, config) + own,
                cure="preprocess into another folder with the model's values, or use --src",
            )


def _differing(config: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the values of a configuration that another has not."""
    keys = sorted(key for key in config.keys() | other.keys() if config.get(key) != other.get(key))
    return ", ".join(f"{key} = {config.get(key)}" for key in keys)
