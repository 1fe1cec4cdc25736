"""Combine the predictions of several models cell by cell.

Where a study has the series on which a condition is annotated, all models are eligible that were
trained on the condition and predicted the study. Where it lacks that series, models of whole
studies come first, because they have learnt to do without it; the others are eligible only if there
is no such model. A cell without an eligible model gets the training prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lumbar.cache.names import LEVELS, N_CELLS, SHOWN_CONDITIONS
from lumbar.cache.store import Cache
from lumbar.train.ensemble.blend import Blend, weighted_mean, with_prior
from lumbar.train.evaluation.baselines import CellPrior, for_studies
from lumbar.train.evaluation.predictions import Predictions

PRIOR = "prior"
"""Written in the place of models' names in a cell that holds the training prior."""


class CellReason(StrEnum):
    """Why a cell holds these models' predictions, or the training prior; each with a sentence."""

    sentence: str

    def __new__(cls, name: str, sentence: str) -> CellReason:
        """Make the reason ``name``, which ``sentence`` explains."""
        reason = str.__new__(cls, name)
        reason._value_ = name
        reason.sentence = sentence
        return reason

    OWN_SERIES = (
        "own_series",
        "the study has the series on which the condition is annotated, and models that were "
        "trained on the condition predicted it",
    )
    STUDY_MODEL = (
        "no_series_study_model",
        "the study lacks that series; models of whole studies predicted without it",
    )
    OTHER_MODEL = (
        "no_series_other_model",
        "the study lacks that series; models of its other series, which were trained on the "
        "condition too, predicted it",
    )
    PRIOR_WEIGHS_MORE = (
        "prior_has_the_weight",
        "models predicted the study, but the blend gives the training prior all of their weight",
    )
    UNREADABLE = (
        "unreadable",
        "the series that a model needs could not be read; the cell holds the training prior",
    )
    NO_SERIES = (
        "nothing_to_look_at",
        "the study has no series for a model that was trained on the condition; the cell holds "
        "the training prior",
    )
    NO_MODEL = (
        "no_model",
        "none of the models was trained on the condition; the cell holds the training prior",
    )
    NO_STUDY = (
        "no_study",
        "the sample submission names a study that is not there; the cell holds the training prior",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleMember:
    """The predictions of one model, or the mean of several of one kind, for combining.

    ``name`` says what the model takes: a series type, its discs, or whole studies. Predictions are
    NaN in cells that the model was not ``trained`` on. ``n_models`` counts the models in the mean.
    """

    name: str
    of_studies: bool
    trained: Bool[np.ndarray, "25"]
    predictions: Predictions
    n_models: Int64[np.ndarray, "n 25"]

    @property
    def is_predicted(self) -> Bool[np.ndarray, "n 25"]:
        """The cells that have a prediction."""
        return self.n_models > 0


def mean_member(members: Sequence[EnsembleMember]) -> EnsembleMember:
    """Return the mean of members of one kind over those that predict a cell, equally weighted."""
    n_models = np.stack([member.n_models for member in members])
    there = (n_models > 0)[..., None]
    total = np.where(there, stacked(members), 0.0).sum(axis=0)
    count = there.sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return EnsembleMember(
        name=members[0].name,
        of_studies=members[0].of_studies,
        trained=np.any([member.trained for member in members], axis=0),
        predictions=Predictions(members[0].predictions.study_ids, mean),
        n_models=n_models.sum(axis=0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """The predictions of an ensemble, and by cell which models they come from and why.

    ``predictions`` have no empty cell: those of ``n_models`` = 0 hold the training prior.
    """

    predictions: Predictions
    n_models: Int64[np.ndarray, "n 25"]
    model_names: list[list[str]]
    reasons: list[list[CellReason]]

    @classmethod
    def concatenate(cls, parts: Sequence[Combined]) -> Combined:
        """Return the predictions of all parts, which hold different studies."""
        return cls(
            predictions=Predictions.concatenate([part.predictions for part in parts]),
            n_models=np.concatenate([part.n_models for part in parts]),
            model_names=[study for part in parts for study in part.model_names],
            reasons=[study for part in parts for study in part.reasons],
        )

    def completed(self, study_ids: Sequence[str], prior: CellPrior) -> Combined:
        """Add the training prior for those of some studies that are absent."""
        missing = tuple(sorted(set(study_ids) - set(self.predictions.study_ids)))
        n, repeated = len(missing), for_studies(prior, len(missing))
        absent = Combined(
            predictions=Predictions(missing, repeated, repeated, np.ones((n, N_CELLS), bool)),
            n_models=np.zeros((n, N_CELLS), np.int64),
            model_names=[[PRIOR] * N_CELLS] * n,
            reasons=[[CellReason.NO_STUDY] * N_CELLS] * n,
        )
        return Combined.concatenate([self, absent])


def own_series(cache: Cache, study_ids: Sequence[str]) -> Bool[np.ndarray, "n 25"]:
    """Tell which studies have a series on which the condition of a cell is annotated."""
    row_of = {study_id: row for row, study_id in enumerate(study_ids)}
    shown = np.zeros((len(study_ids), N_CELLS), bool)
    for series_type, conditions in SHOWN_CONDITIONS.items():
        cells = np.isin(np.arange(N_CELLS) // len(LEVELS), conditions)
        of_type = cache.series.filter(cache.series["series_type"] == str(series_type))
        for study_id in of_type["study_id"].unique():
            if study_id in row_of:
                shown[row_of[study_id]] |= cells
    return shown


def stacked(members: Sequence[EnsembleMember]) -> Float64[np.ndarray, "m n 25 3"]:
    """Return the probabilities of all members, which have the same studies."""
    return np.stack([member.predictions.probabilities for member in members])


def eligible_members(
    members: Sequence[EnsembleMember], own: Bool[np.ndarray, "n 25"]
) -> Bool[np.ndarray, "m n 25"]:
    """Tell which members are eligible for each cell; ``own`` is what `own_series` returns."""
    predicted = np.stack([member.is_predicted for member in members])
    of_studies = np.array([member.of_studies for member in members])[:, None, None]
    study_only = ~own & (predicted & of_studies).any(axis=0)
    return np.asarray(predicted & (of_studies | ~study_only))


def combine(
    members: Sequence[EnsembleMember],
    own: Bool[np.ndarray, "n 25"],
    prior: Float64[np.ndarray, "n 25 3"],
    *,
    blend: Blend | None = None,
    unreadable: Bool[np.ndarray, "n 25"] | None = None,
) -> Combined:
    """Combine the members that are eligible for each cell: their mean, or a blend of them.

    ``blend`` has a row of weights for each member, in their order, and may have one more for the
    training prior. A cell without an eligible member gets the ``prior``.
    """
    probabilities, eligible = stacked(members), eligible_members(members, own)
    weights = Blend.equal(len(members)) if blend is None else blend
    if len(weights.weights) > len(members):
        probabilities, eligible = with_prior(probabilities, eligible, prior)
    shares = weights.shares(eligible)
    mean = weighted_mean(probabilities, shares, space=weights.space)
    counted = np.asarray(shares > 0)
    n_models = np.stack([member.n_models for member in members]) * counted[: len(members)]
    n_models = n_models.sum(axis=0)
    filled = np.where(np.isnan(mean), prior, mean)
    study_ids = members[0].predictions.study_ids
    return Combined(
        predictions=Predictions(study_ids, filled, prior, n_models == 0),
        n_models=n_models,
        model_names=_names(members, counted),
        reasons=_reasons(members, counted, own, unreadable),
    )


def _names(
    members: Sequence[EnsembleMember], counted: Bool[np.ndarray, "m n 25"]
) -> list[list[str]]:
    """Return, for each cell, the names of the members that count, each once, or `PRIOR`."""
    names = np.array([*(member.name for member in members), PRIOR])[: len(counted)]
    named: dict[bytes, str] = {}

    def of(pattern: np.ndarray) -> str:
        key = pattern.tobytes()
        if key not in named:
            named[key] = "+".join(sorted(set(names[pattern].tolist()))) or PRIOR
        return named[key]

    return [[of(cell) for cell in study] for study in counted.transpose(1, 2, 0)]


def _reasons(
    members: Sequence[EnsembleMember],
    counted: Bool[np.ndarray, "m n 25"],
    own: Bool[np.ndarray, "n 25"],
    unreadable: Bool[np.ndarray, "n 25"] | None,
) -> list[list[CellReason]]:
    of_studies = np.array([member.of_studies for member in members])[:, None, None]
    trained = np.any([member.trained for member in members], axis=0)
    models, by_weight = counted[: len(members)], counted[len(members) :].any(axis=0)
    by_model, by_study_model = models.any(axis=0), (models & of_studies).any(axis=0)
    broken = np.zeros_like(own) if unreadable is None else unreadable
    cases = {
        CellReason.OWN_SERIES: by_model & own,
        CellReason.STUDY_MODEL: by_model & by_study_model,
        CellReason.OTHER_MODEL: by_model,
        CellReason.PRIOR_WEIGHS_MORE: by_weight,
        CellReason.UNREADABLE: broken & trained,
        CellReason.NO_SERIES: trained & ~by_model,
    }
    order = [*cases, CellReason.NO_MODEL]
    codes = np.select(list(cases.values()), range(len(cases)), default=len(cases)).tolist()
    return [[order[code] for code in study_codes] for study_codes in codes]
