"""What trained models say of the studies of a cache, a few studies at a time."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float64

from lumbar.cache.errors import LumbarError
from lumbar.cache.names import EXCHANGED_CELLS, N_CELLS, N_SEVERITIES
from lumbar.cache.store import Cache
from lumbar.train.ensemble.combine import Voice
from lumbar.train.inference.forward import predict_batches, study_predictions
from lumbar.train.locator.locate import locate
from lumbar.train.loss import CellLoss
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.reader import Reader
from lumbar.train.run.checkpoint import ModelBundle
from lumbar.train.run.config import RunConfig
from lumbar.train.run.split import find_rows, find_samples

STUDIES_AT_ONCE = 8
"""Studies whose volumes are open together: memory and what a broken one delays are bounded."""

BATCH_ON_CPU = 4
"""Samples a batch on the CPU, however many the run was trained with: they cost memory there."""

SIDES_EXCHANGED = AugmentConfig.none().model_copy(update={"side_exchange": 1.0})

Words = dict[str, Float64[np.ndarray, "25 3"]]
"""What a model says of studies; NaN where it says nothing of a cell."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StudiesPredicted:
    """Progress: ``done`` of ``total`` studies have been through all models."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A voice for each model, and the cells of which a series could not be read."""

    voices: list[Voice]
    unreadable: Bool[np.ndarray, "n 25"]


@dataclass(frozen=True, slots=True)
class _Unit:
    """Models that see the same samples, which are read once for all of them."""

    places: list[int]
    models: list[ModelBundle]
    losses: list[CellLoss]

    @property
    def trained(self) -> Bool[np.ndarray, "25"]:
        """The cells that any of the models was trained on."""
        return np.asarray(np.any([trained_cells(loss) for loss in self.losses], axis=0))


@dataclass(slots=True)
class _Listening:
    """What was heard so far: the words of each model, what was broken, and how."""

    words: list[Words]
    unreadable: dict[str, Bool[np.ndarray, "25"]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    error: LumbarError | OSError | None = None


def listen(
    cache: Cache,
    models: Sequence[ModelBundle],
    study_ids: Sequence[str],
    *,
    device: torch.device,
    threads: int,
    tta: bool,
) -> Iterator[StudiesPredicted | Heard]:
    """Let each model speak of the studies of which it has series; the last event holds the words.

    With ``tta`` a model also sees every sample with the patient's sides exchanged, and its word is
    the mean. A study whose series cannot be read is left out, with a warning.

    Raises
    ------
    LumbarError, OSError
        If there are several studies and none of them can be read.
    """
    units = _units(models, device)
    listening = _Listening([{} for _ in models])
    for first in range(0, len(study_ids), STUDIES_AT_ONCE):
        studies = study_ids[first : first + STUDIES_AT_ONCE]
        # A cache of their own: its memory maps go with it.
        part = Cache(cache.root)
        for unit in units:
            _hear(part, unit, studies, listening, device=device, threads=threads, tta=tta)
        yield StudiesPredicted(first + len(studies), len(study_ids))
    if listening.error is not None and len(listening.failed) > 1 and not any(listening.words):
        raise listening.error
    unreadable = np.zeros((len(study_ids), N_CELLS), bool)
    for row, study_id in enumerate(study_ids):
        unreadable[row] = listening.unreadable.get(study_id, False)
    voices = [
        voice_of(model.config, words, study_ids)
        for model, words in zip(models, listening.words, strict=True)
    ]
    yield Heard(voices, unreadable)


def trained_cells(loss: CellLoss) -> Bool[np.ndarray, "25"]:
    """Return the cells that a loss trains."""
    return np.asarray(loss.trained.cpu().numpy(), bool)


def _units(models: Sequence[ModelBundle], device: torch.device) -> list[_Unit]:
    """Put models together that see the same samples, such as the folds of a configuration."""
    units: dict[Hashable, _Unit] = {}
    for place, trained in enumerate(models):
        config = trained.config
        sees: Hashable = (
            config.series,
            config.series_types,
            config.crop.model_dump_json(),
            config.bfloat16,
        )
        if config.sample == "disc":
            sees = place  # each finds its discs by itself
        unit = units.setdefault(sees, _Unit([], [], []))
        unit.places.append(place)
        unit.models.append(trained)
        unit.losses.append(CellLoss(config.loss, config.series_types).to(device))
        trained.model.to(device)
    return list(units.values())


def _hear(
    cache: Cache,
    unit: _Unit,
    studies: Sequence[str],
    listening: _Listening,
    *,
    device: torch.device,
    threads: int,
    tta: bool,
) -> None:
    """Add a unit's words on some studies; where reading fails, one study after the other."""
    try:
        heard = _speak(cache, unit, studies, device=device, threads=threads, tta=tta)
    except (LumbarError, OSError) as error:
        if len(studies) > 1:
            for study_id in studies:
                _hear(cache, unit, [study_id], listening, device=device, threads=threads, tta=tta)
            return
        # The edge of one study: it costs its own rows, never the file.
        _log.warning("study %s is predicted without its %s: %s", studies[0], _name(unit), error)
        listening.error = error
        listening.failed.add(studies[0])
        known = listening.unreadable.get(studies[0], np.zeros(N_CELLS, bool))
        listening.unreadable[studies[0]] = known | unit.trained
        return
    for place, words in zip(unit.places, heard, strict=True):
        listening.words[place].update(words)


def _name(unit: _Unit) -> str:
    return voice_name(unit.models[0].config)


def _speak(
    cache: Cache,
    unit: _Unit,
    studies: Sequence[str],
    *,
    device: torch.device,
    threads: int,
    tta: bool,
) -> list[Words]:
    """Return the words of each of a unit's models on some studies."""
    samples = _samples(cache, unit.models[0], studies, device=device, threads=threads)
    if not len(samples):
        return [{} for _ in unit.models]
    plain = _probabilities(
        cache, unit, samples, AugmentConfig.none(), device=device, threads=threads
    )
    if tta:
        exchanged = _probabilities(
            cache, unit, samples, SIDES_EXCHANGED, device=device, threads=threads
        )
        back = list(EXCHANGED_CELLS)
        plain = [(p + e[:, back]) / 2 for p, e in zip(plain, exchanged, strict=True)]
    return [study_predictions(samples, probabilities) for probabilities in plain]


def _samples(
    cache: Cache,
    trained: ModelBundle,
    studies: Sequence[str],
    *,
    device: torch.device,
    threads: int,
) -> Samples:
    """Return what a model looks at of some studies; it finds its discs by itself."""
    config = trained.config
    places = None
    if config.sample == "disc":
        assert trained.locator is not None, "a run of discs has a locator"
        rows = find_rows(cache, config, studies)
        places = locate(cache, rows, trained.locator, device=device, threads=threads)
    return find_samples(cache, config, studies, places=places)


def _probabilities(
    cache: Cache,
    unit: _Unit,
    samples: Samples,
    augment: AugmentConfig,
    *,
    device: torch.device,
    threads: int,
) -> list[Float64[np.ndarray, "n 25 3"]]:
    """Return what each of a unit's models says of every sample, in order."""
    config = unit.models[0].config
    batch = config.optim.batch if device.type != "cpu" else BATCH_ON_CPU
    plan = Plan(samples, config.crop, augment, batch=batch, shuffle=False)
    said: list[list[Float64[np.ndarray, "b 25 3"]]] = [[] for _ in unit.models]
    dtype = torch.bfloat16 if config.bfloat16 else torch.float32
    with Reader(cache, plan, device=device, dtype=dtype, threads=threads) as reader:
        for read in reader.epoch():
            for of_model, trained, loss in zip(said, unit.models, unit.losses, strict=True):
                of_model.append(
                    predict_batches(trained.model, loss, [read], bfloat16=config.bfloat16)[0]
                )
    return [np.concatenate(of_model) for of_model in said]


def voice_of(config: RunConfig, words: Words, study_ids: Sequence[str]) -> Voice:
    """Return a model's words as a voice: NaN where it says nothing or was not trained."""
    cells = trained_cells(CellLoss(config.loss, config.series_types))
    silent = np.full((N_CELLS, N_SEVERITIES), np.nan)
    probabilities = np.stack([words.get(study_id, silent) for study_id in study_ids])
    probabilities[:, ~cells] = np.nan
    return Voice(
        name=voice_name(config),
        of_studies=config.sample == "study",
        trained=cells,
        probabilities=probabilities,
        models=(~np.isnan(probabilities).any(axis=2)).astype(np.int64),
    )


def voice_name(config: RunConfig) -> str:
    """Return what a model looks at: a series type, its discs, or whole studies."""
    return f"{config.series}_discs" if config.sample == "disc" else str(config.series)
