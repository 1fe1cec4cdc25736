"""Predict the studies of a cache with several models, a few studies at a time."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float64

from lumbar.cache.errors import LumbarError
from lumbar.cache.names import EXCHANGED_CELLS, N_CELLS
from lumbar.cache.store import Cache
from lumbar.train.ensemble.combine import EnsembleMember
from lumbar.train.evaluation.predictions import Predictions
from lumbar.train.inference.forward import predict_batches, study_means
from lumbar.train.locator.locate import locate
from lumbar.train.loss import CellLoss
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.reader import Reader
from lumbar.train.run.checkpoint import ModelBundle
from lumbar.train.run.config import RunConfig
from lumbar.train.run.predictions import untrained_cells
from lumbar.train.run.split import find_rows, find_samples

STUDIES_AT_ONCE = 8
"""Studies whose volumes are open at the same time. It bounds the memory, and how many studies are
read again one by one because one of them is broken."""

BATCH_ON_CPU = 4
"""Samples per batch on the CPU, whatever the batch of the run was: they cost memory there."""

SIDES_EXCHANGED = AugmentConfig.none().model_copy(update={"side_exchange": 1.0})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StudiesPredicted:
    """Progress: all models have predicted ``done`` of ``total`` studies."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ModelsPredicted:
    """The predictions of each model, and the cells of which a series could not be read."""

    members: list[EnsembleMember]
    unreadable: Bool[np.ndarray, "n 25"]


@dataclass(frozen=True, slots=True)
class _Group:
    """Models that take the same samples, which are read once for all of them."""

    places: list[int]
    bundles: list[ModelBundle]
    losses: list[CellLoss]

    @property
    def config(self) -> RunConfig:
        return self.bundles[0].config


@dataclass(slots=True)
class _Run:
    """A prediction that is under way: its parts by model, and what could not be read."""

    parts: list[list[Predictions]]
    device: torch.device
    threads: int
    tta: bool
    unreadable: dict[str, Bool[np.ndarray, "25"]] = field(default_factory=dict)
    error: LumbarError | OSError | None = None


def run_models(
    cache: Cache,
    bundles: Sequence[ModelBundle],
    study_ids: Sequence[str],
    *,
    device: torch.device,
    threads: int,
    tta: bool,
) -> Iterator[StudiesPredicted | ModelsPredicted]:
    """Predict these studies with every model that has series of them; the result comes last.

    With ``tta`` a prediction is the mean of two: of each sample as it is, and with the patient's
    sides exchanged. A study whose series cannot be read is left out, with a warning.

    Raises
    ------
    LumbarError, OSError
        If there are several studies and none of them can be read.
    """
    groups = _groups(bundles, device)
    run = _Run([[] for _ in bundles], device, threads, tta)
    for first in range(0, len(study_ids), STUDIES_AT_ONCE):
        studies = study_ids[first : first + STUDIES_AT_ONCE]
        # A cache of its own for each part: its memory maps are closed with it.
        part = Cache(cache.root)
        for group in groups:
            _predict_or_skip(part, group, studies, run)
        yield StudiesPredicted(first + len(studies), len(study_ids))
    if run.error is not None and len(run.unreadable) > 1 and not any(run.parts):
        raise run.error
    unreadable = np.zeros((len(study_ids), N_CELLS), bool)
    for row, study_id in enumerate(study_ids):
        unreadable[row] = run.unreadable.get(study_id, False)
    members = [
        member_of(bundle.config, Predictions.concatenate(parts).of(study_ids))
        for bundle, parts in zip(bundles, run.parts, strict=True)
    ]
    yield ModelsPredicted(members, unreadable)


def _groups(bundles: Sequence[ModelBundle], device: torch.device) -> list[_Group]:
    """Group models that take the same samples, such as the folds of a configuration."""
    groups: dict[Hashable, _Group] = {}
    for place, bundle in enumerate(bundles):
        config = bundle.config
        takes: Hashable = (
            config.series,
            config.series_types,
            config.crop.model_dump_json(),
            config.bfloat16,
        )
        if config.sample == "disc":
            takes = place  # each has a locator of its own
        group = groups.setdefault(takes, _Group([], [], []))
        group.places.append(place)
        group.bundles.append(bundle)
        group.losses.append(CellLoss(config.loss, config.series_types).to(device))
        bundle.model.to(device)
    return list(groups.values())


def _predict_or_skip(cache: Cache, group: _Group, studies: Sequence[str], run: _Run) -> None:
    """Add a group's predictions of some studies; if reading fails, go study by study."""
    try:
        _predict(cache, group, studies, run)
    except (LumbarError, OSError) as error:
        if len(studies) > 1:
            for study_id in studies:
                _predict_or_skip(cache, group, [study_id], run)
            return
        # The edge of one study: it costs its own rows, never the file.
        _log.warning(
            "study %s is predicted without its %s: %s", studies[0], model_name(group.config), error
        )
        run.error = error
        trained = ~np.all([untrained_cells(bundle.config) for bundle in group.bundles], axis=0)
        known = run.unreadable.get(studies[0], np.zeros(N_CELLS, bool))
        run.unreadable[studies[0]] = known | trained


def _predict(cache: Cache, group: _Group, studies: Sequence[str], run: _Run) -> None:
    """Add the predictions of some studies by each of a group's models; none without samples."""
    places = None
    if group.config.sample == "disc":
        locator = group.bundles[0].locator
        assert locator is not None, "a run of discs has a locator"
        rows = find_rows(cache, group.config, studies)
        places = locate(cache, rows, locator, device=run.device, threads=run.threads)
    samples = find_samples(cache, group.config, studies, places=places)
    if not len(samples):
        return
    plain = _probabilities(cache, group, samples, AugmentConfig.none(), run)
    if run.tta:
        exchanged = _probabilities(cache, group, samples, SIDES_EXCHANGED, run)
        back = list(EXCHANGED_CELLS)
        plain = [(p + e[:, back]) / 2 for p, e in zip(plain, exchanged, strict=True)]
    for place, probabilities in zip(group.places, plain, strict=True):
        run.parts[place].append(study_means(samples, probabilities))


def _probabilities(
    cache: Cache, group: _Group, samples: Samples, augment: AugmentConfig, run: _Run
) -> list[Float64[np.ndarray, "n 25 3"]]:
    """Return the probabilities of every sample, in order, by each of a group's models."""
    config = group.config
    batch_size = config.optim.batch if run.device.type != "cpu" else BATCH_ON_CPU
    plan = Plan(samples, config.crop, augment, batch=batch_size, shuffle=False)
    by_model: list[list[Float64[np.ndarray, "b 25 3"]]] = [[] for _ in group.bundles]
    dtype = torch.bfloat16 if config.bfloat16 else torch.float32
    with Reader(cache, plan, device=run.device, dtype=dtype, threads=run.threads) as reader:
        for batch in reader.epoch():
            for parts, bundle, loss in zip(by_model, group.bundles, group.losses, strict=True):
                parts.append(
                    predict_batches(bundle.model, loss, [batch], bfloat16=config.bfloat16)[0]
                )
    return [np.concatenate(parts) for parts in by_model]


def member_of(config: RunConfig, predictions: Predictions) -> EnsembleMember:
    """Return a model's predictions as a member of an ensemble: NaN in untrained cells."""
    untrained = untrained_cells(config)
    probabilities = predictions.probabilities.copy()
    probabilities[:, untrained] = np.nan
    kept = Predictions(predictions.study_ids, probabilities)
    return EnsembleMember(
        name=model_name(config),
        of_studies=config.sample == "study",
        trained=~untrained,
        predictions=kept,
        n_models=kept.is_predicted.astype(np.int64),
    )


def model_name(config: RunConfig) -> str:
    """Return what a model takes: a series type, its discs, or whole studies."""
    return f"{config.series}_discs" if config.sample == "disc" else str(config.series)
