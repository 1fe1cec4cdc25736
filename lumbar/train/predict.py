"""Predict every study of a cache with one model or several; no study goes without its 25 rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from lumbar.cache.errors import InputError
from lumbar.cache.names import N_CELLS, N_SEVERITIES
from lumbar.cache.store import Cache
from lumbar.train.augment import AugmentConfig
from lumbar.train.checkpoint import BEST, TrainedModel, load_checkpoint
from lumbar.train.inference import predict_batches, study_predictions
from lumbar.train.loss import CellLoss
from lumbar.train.plan import Plan
from lumbar.train.reader import Reader
from lumbar.train.samples import Samples


@dataclass(frozen=True, slots=True)
class BatchPredicted:
    """Progress: ``done`` of ``total`` series have been through their model."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Predictions:
    """What was predicted.

    ``models`` counts for each of the 25 cells of a study the models that spoke; where it is 0 the
    prior stands in.
    """

    study_ids: tuple[str, ...]
    probabilities: Float64[np.ndarray, "n 25 3"]
    models: Int64[np.ndarray, "n 25"]


def load_models(runs: Sequence[Path]) -> list[TrainedModel]:
    """Load the best checkpoint of each run; a run is its folder or a checkpoint file.

    Raises
    ------
    MissingError, FormatError, InputError
        If one cannot be loaded, or they were trained on differently preprocessed caches.
    """
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


def find_studies(cache: Cache) -> list[str]:
    """Return the studies of the cache and of its source, be none of their series cached."""
    tables = (cache.series, cache.labels)
    studies = {study_id for table in tables for study_id in table["study_id"].to_list()}
    return sorted(studies.union(cache.source_studies))


def predict(
    cache: Cache, models: Sequence[TrainedModel], *, device: torch.device, threads: int
) -> Iterator[BatchPredicted | Predictions]:
    """Predict all studies of a cache; the last event holds the predictions.

    A cell takes the mean over the models that were trained on it and have a series of the study;
    each model's word on a study is the mean over its series. Where none has, the prior of the
    models' training studies stands in.

    Raises
    ------
    InputError
        If the cache was preprocessed otherwise than the models' or holds no study.
    """
    _check_preprocessing(cache, models)
    study_ids = find_studies(cache)
    if not study_ids:
        raise InputError(
            what="no study to predict",
            where=cache.root,
            got="a cache without any study",
            expected="one study or more",
            cure="name a cache that holds studies",
        )
    row_of = {study_id: row for row, study_id in enumerate(study_ids)}
    sums = np.zeros((len(study_ids), N_CELLS, N_SEVERITIES))
    counts = np.zeros((len(study_ids), N_CELLS), np.int64)
    work = [(model, _series_of(cache, model)) for model in models]
    done, total = 0, sum(len(series) for _, series in work)
    for model, series in work:
        if not len(series):
            continue
        trained = CellLoss(model.config.loss, model.config.series_types).to(device)
        chunks = []
        for chunk in _predict_series(cache, model, trained, series, device=device, threads=threads):
            chunks.append(chunk)
            done += len(chunk)
            yield BatchPredicted(done, total)
        cells = trained.trained.cpu().numpy()
        for study_id, mean in study_predictions(series, np.concatenate(chunks)).items():
            sums[row_of[study_id], cells] += mean[cells]
            counts[row_of[study_id], cells] += 1
    prior = np.mean([model.prior for model in models], axis=0)
    probabilities = np.where(counts[..., None] > 0, sums / np.maximum(counts, 1)[..., None], prior)
    yield Predictions(tuple(study_ids), probabilities, counts)


def _check_preprocessing(cache: Cache, models: Sequence[TrainedModel]) -> None:
    config = cache.voxel_config
    for model in models:
        if model.preprocess != config:
            raise InputError(
                what="the cache was preprocessed otherwise than the model's",
                where=cache.root,
                got=_differing(config, model.preprocess),
                expected=_differing(model.preprocess, config),
                cure="preprocess into another folder with the model's values, or use --src",
            )


def _differing(config: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the values of a configuration that another has not."""
    keys = sorted(key for key in config.keys() | other.keys() if config.get(key) != other.get(key))
    return ", ".join(f"{key} = {config.get(key)}" for key in keys)


def _series_of(cache: Cache, model: TrainedModel) -> Samples:
    rows = cache.series["series_type"].eq(str(model.config.series_type)).arg_true().to_list()
    return Samples.of_series(cache, rows)


def _predict_series(
    cache: Cache,
    model: TrainedModel,
    loss: CellLoss,
    series: Samples,
    *,
    device: torch.device,
    threads: int,
) -> Iterator[Float64[np.ndarray, "n 25 3"]]:
    """Yield the probabilities of the series, a batch at a time, in order."""
    config = model.config
    plan = Plan(series, config.crop, AugmentConfig.none(), batch=config.optim.batch, shuffle=False)
    model.model.to(device)
    with Reader(
        cache,
        plan,
        device=device,
        dtype=torch.bfloat16 if config.bfloat16 else torch.float32,
        threads=threads,
    ) as reader:
        for batch in reader.epoch():
            yield predict_batches(model.model, loss, [batch], bfloat16=config.bfloat16)[0]
