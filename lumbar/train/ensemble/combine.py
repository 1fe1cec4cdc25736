"""Whose word counts for a row: several models' words on the same cells become one.

Where a study has the series on which a condition is annotated, all models that were trained on the
condition and looked at the study are asked. Where it has not, a model of whole studies is asked, if
there is one, for it has learnt to do without; else the others; else the training prior, that of the
models' training studies, stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lumbar.cache.names import LEVELS, N_CELLS, SHOWN_CONDITIONS
from lumbar.cache.store import Cache
from lumbar.train.ensemble.blend import Blend, mixed_words, with_prior

PRIOR = "prior"
"""In the place of models' names: the training prior, which stands in where none is asked."""


class CellReason(StrEnum):
    """Why a row was served as it was."""

    OWN_SERIES = "own_series"
    STUDY_MODEL = "no_series_study_model"
    OTHER_MODEL = "no_series_other_model"
    PRIOR_WEIGHS_MORE = "prior_has_the_weight"
    NOT_LOOKED_AT = "nothing_to_look_at"
    NO_MODEL = "no_model"
    UNREADABLE = "unreadable"
    NO_STUDY = "no_study"

    @property
    def sentence(self) -> str:
        """What the reason means."""
        return _SENTENCES[self]


_SENTENCES = {
    CellReason.OWN_SERIES: "models that were trained on the condition looked at the study, which has "
    "the series on which the condition is annotated",
    CellReason.STUDY_MODEL: "the study lacks that series; models of whole studies did without it",
    CellReason.OTHER_MODEL: "the study lacks that series; models of its other series, trained on the "
    "condition too, stood in",
    CellReason.PRIOR_WEIGHS_MORE: "models looked at the study, but the blend gives the training "
    "prior all of their weight",
    CellReason.NOT_LOOKED_AT: "no model that was trained on the condition found a series to look at; "
    "the training prior stood in",
    CellReason.NO_MODEL: "none of the models was trained on the condition; the training prior stood in",
    CellReason.UNREADABLE: "the series that a model would have looked at could not be read; the "
    "training prior stood in",
    CellReason.NO_STUDY: "the sample submission names a study that is not there; the training prior "
    "stood in",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What one model, or several as one member of a blend, says of the cells of every study.

    ``name`` is what it looks at. ``probabilities`` are NaN where it says nothing, as it does of
    cells that it was not ``trained`` on. ``models`` counts the models whose mean they are.
    """

    name: str
    of_studies: bool
    trained: Bool[np.ndarray, "25"]
    probabilities: Float64[np.ndarray, "n 25 3"]
    models: Int64[np.ndarray, "n 25"]

    @property
    def speaks(self) -> Bool[np.ndarray, "n 25"]:
        """The cells of which something is said."""
        return self.models > 0


def together(voices: Sequence[Voice]) -> Voice:
    """Return the mean of voices of one kind: those that speak of a cell, each the same."""
    models = np.stack([voice.models for voice in voices])
    spoken = (models > 0)[..., None]
    total = np.where(spoken, [voice.probabilities for voice in voices], 0.0).sum(axis=0)
    count = spoken.sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return Voice(
        name=voices[0].name,
        of_studies=voices[0].of_studies,
        trained=np.any([voice.trained for voice in voices], axis=0),
        probabilities=mean,
        models=models.sum(axis=0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What was served: probabilities, how many models they are of, whose they are and why."""

    probabilities: Float64[np.ndarray, "n 25 3"]
    models: Int64[np.ndarray, "n 25"]
    served_by: list[list[str]]
    reasons: list[list[CellReason]]

    @classmethod
    def of_parts(cls, parts: Sequence[Served]) -> Served:
        """Put what was served to different studies together."""
        return cls(
            probabilities=np.concatenate([part.probabilities for part in parts]),
            models=np.concatenate([part.models for part in parts]),
            served_by=[study for part in parts for study in part.served_by],
            reasons=[study for part in parts for study in part.reasons],
        )

    @classmethod
    def of_prior(cls, prior: Float64[np.ndarray, "25 3"], n_studies: int) -> Served:
        """Return what is served to studies that are not there."""
        return cls(
            probabilities=np.repeat(prior[None], n_studies, axis=0),
            models=np.zeros((n_studies, N_CELLS), np.int64),
            served_by=[[PRIOR] * N_CELLS] * n_studies,
            reasons=[[CellReason.NO_STUDY] * N_CELLS] * n_studies,
        )


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


def asked(voices: Sequence[Voice], own: Bool[np.ndarray, "n 25"]) -> Bool[np.ndarray, "m n 25"]:
    """Tell which voices are asked: all that speak; without the series those of studies first."""
    speaking = np.stack([voice.speaks for voice in voices])
    of_studies = np.array([voice.of_studies for voice in voices])[:, None, None]
    study_only = ~own & (speaking & of_studies).any(axis=0)
    return np.asarray(speaking & (of_studies | ~study_only))


def serve(
    voices: Sequence[Voice],
    own: Bool[np.ndarray, "n 25"],
    prior: Float64[np.ndarray, "n 25 3"],
    *,
    blend: Blend | None = None,
    unreadable: Bool[np.ndarray, "n 25"] | None = None,
) -> Served:
    """Make one prediction of several voices: their mean, or what a blend makes of them.

    ``blend`` has a member for each of the voices, in their order, and may have the prior as one
    more. The training prior stands in where nobody is asked.
    """
    words, is_asked = np.stack([voice.probabilities for voice in voices]), asked(voices, own)
    weights = Blend.equal(len(voices)) if blend is None else blend
    if len(weights.weights) > len(voices):
        words, is_asked = with_prior(words, is_asked, prior)
    counts = weights.shares(is_asked)
    mixed = mixed_words(words, counts, space=weights.space)
    heard = np.asarray(counts > 0)
    counted = np.stack([voice.models for voice in voices]) * heard[: len(voices)]
    return Served(
        probabilities=np.where(np.isnan(mixed), prior, mixed),
        models=counted.sum(axis=0),
        served_by=_names(voices, heard),
        reasons=_reasons(voices, heard, own, unreadable),
    )


def _names(voices: Sequence[Voice], heard: Bool[np.ndarray, "m n 25"]) -> list[list[str]]:
    """Return, for each cell, the names of those heard, each once, or that of the prior."""
    names = np.array([*(voice.name for voice in voices), PRIOR])[: len(heard)]
    named: dict[bytes, str] = {}

    def of(pattern: np.ndarray) -> str:
        key = pattern.tobytes()
        if key not in named:
            named[key] = "+".join(sorted(set(names[pattern].tolist()))) or PRIOR
        return named[key]

    return [[of(cell) for cell in study] for study in heard.transpose(1, 2, 0)]


def _reasons(
    voices: Sequence[Voice],
    heard: Bool[np.ndarray, "m n 25"],
    own: Bool[np.ndarray, "n 25"],
    unreadable: Bool[np.ndarray, "n 25"] | None,
) -> list[list[CellReason]]:
    of_studies = np.array([voice.of_studies for voice in voices])[:, None, None]
    trained = np.any([voice.trained for voice in voices], axis=0)
    models, by_weight = heard[: len(voices)], heard[len(voices) :].any(axis=0)
    anybody, study = models.any(axis=0), (models & of_studies).any(axis=0)
    broken = np.zeros_like(own) if unreadable is None else unreadable
    cases = [
        *(anybody & own, anybody & study, anybody, by_weight),
        *(broken & trained, trained & ~anybody),
    ]
    codes = np.select(cases, range(len(cases)), default=len(cases)).tolist()
    order = (
        CellReason.OWN_SERIES,
        CellReason.STUDY_MODEL,
        CellReason.OTHER_MODEL,
        CellReason.PRIOR_WEIGHS_MORE,
        CellReason.UNREADABLE,
        CellReason.NOT_LOOKED_AT,
        CellReason.NO_MODEL,
    )
    return [[order[code] for code in study_codes] for study_codes in codes]
