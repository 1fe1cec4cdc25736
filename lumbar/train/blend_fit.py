"""Fit a blend's weights to out-of-fold predictions, and say honestly what the blend is worth.

In each group of conditions the weights minimise the group's parts of the metric: for the spinal
group those of the cells and of "any severe" together. The score that is reported is cross-fitted:
the studies are dealt into parts, and each part is blended with weights fitted to the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN, Severities
from lumbar.cache.names import N_SEVERITIES
from lumbar.train.blend_weights import GroupCells, fit_weights
from lumbar.train.blending import Blend, Space, by_cell, mixed_words, with_prior
from lumbar.train.bootstrap import Intervals, by_patient, difference_intervals, score_intervals
from lumbar.train.metric import (
    GROUP_CELLS,
    Score,
    cell_losses,
    score,
    study_terms,
)
from lumbar.train.prior import for_studies, weighted_prior, with_floor
from lumbar.train.serving import Voice, asked
from lumbar.train.split import folds

PARTS_OF_STUDIES = 5
"""Parts of the cross-fit."""

SEED = 0

GroupWeights = dict[str, Float64[np.ndarray, " m"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendFit:
    """A blend, and its worth out of fold.

    ``weights`` and ``losses``, those of each member alone where it speaks, are by group; infinite
    where a member says nothing. The prior's stand behind those of the members: without it a blend
    of models that are worse than the prior would be worse than the one that says least. ``score``
    is cross-fitted, ``fitted_score`` is that of the very studies that the weights were fitted to.
    ``members`` are the scores of each member alone, the prior standing in where it says nothing,
    and ``mean`` is that of their plain mean. ``predicted`` are the cross-fitted predictions.
    ``against_best`` is the interval of the blend's difference to the best member.
    """

    space: Space
    weights: GroupWeights
    losses: GroupWeights
    score: Score
    intervals: Intervals
    fitted_score: Score
    mean: Score
    members: list[Score]
    best: int
    against_best: Intervals
    predicted: Float64[np.ndarray, "n 25 3"]

    @property
    def n_studies(self) -> int:
        """How many studies the blend was fitted to."""
        return len(self.predicted)

    def blend(self) -> Blend:
        """Return the weights by cell."""
        return _blend(self.space, self.weights, self.losses)


@dataclass(frozen=True, slots=True)
class _Table:
    """What is blended: words (m, n, 25, 3), who is asked, the truth, what stands in."""

    words: Float64[np.ndarray, "m n 25 3"]
    asked: Bool[np.ndarray, "m n 25"]
    severities: Severities

    def of(self, studies: np.ndarray) -> _Table:
        return _Table(self.words[:, studies], self.asked[:, studies], self.severities[studies])

    def and_prior(self, prior: Float64[np.ndarray, "n 25 3"]) -> _Table:
        return _Table(*with_prior(self.words, self.asked, prior), self.severities)


def fit_blend(
    voices: Sequence[Voice],
    own: Bool[np.ndarray, "n 25"],
    study_ids: Sequence[str],
    severities: Severities,
    *,
    space: Space = "probability",
    patients: Mapping[str, str] | None = None,
) -> BlendFit:
    """Fit the weights of voices, all of whose words are on studies held out from their training.

    ``own`` says which studies have the series of a cell's condition, as `serving.asked` wants it.
    ``patients`` names the patient of studies that share theirs, which stay together.

    Raises
    ------
    InputError
        If there are fewer than two voices, fewer labelled studies than parts, or no voice speaks
        of a labelled cell.
    """
    table = _Table(
        np.stack([voice.probabilities for voice in voices]), asked(voices, own), severities
    )
    _check(table)
    part_of = folds(study_ids, severities, n_folds=PARTS_OF_STUDIES, seed=SEED, patients=patients)
    parts = np.array([part_of[study_id] for study_id in study_ids])
    crossed = np.empty((len(study_ids), *table.words.shape[2:]))
    for part in range(PARTS_OF_STUDIES):
        crossed[parts == part] = _predict_part(table, parts == part, space)
    prior = for_studies(with_floor(weighted_prior(severities)), len(study_ids))
    whole = table.and_prior(prior)
    weights, losses = _fit(whole, space), _own_losses(whole)
    alone = [
        _or_prior(np.where(a[..., None], w, np.nan), prior)
        for w, a in zip(table.words, table.asked, strict=True)
    ]
    mean = mixed_words(
        table.words, Blend.equal(len(voices)).shares(table.asked), space="probability"
    )
    scores = [score(words, severities) for words in alone]
    best = int(np.argmin([one.total for one in scores]))
    terms = by_patient(study_terms(crossed, severities), study_ids, patients)
    fitted = _mixed(whole, space, weights, losses)
    return BlendFit(
        space=space,
        weights=weights,
        losses=losses,
        score=score(crossed, severities),
        intervals=score_intervals(terms),
        fitted_score=score(_or_prior(fitted, prior), severities),
        mean=score(_or_prior(mean, prior), severities),
        members=scores,
        best=best,
        against_best=difference_intervals(
            terms, by_patient(study_terms(alone[best], severities), study_ids, patients)
        ),
        predicted=crossed,
    )


def _check(table: _Table) -> None:
    if len(table.words) < 2:
        raise InputError(
            what="members of a blend",
            got=len(table.words),
            expected="two or more, which differ in more than their folds",
            cure="name the runs of another configuration too",
        )
    if len(table.severities) < PARTS_OF_STUDIES:
        raise InputError(
            what="too few studies to fit a blend to",
            got=f"{len(table.severities)} that were held out",
            expected=f"{PARTS_OF_STUDIES} or more, better hundreds",
            cure="name all folds of the runs",
        )
    if not (table.asked & (table.severities != UNKNOWN)).any():
        raise InputError(
            what="nothing to fit a blend to",
            got="no labelled cell of which a member speaks",
            expected="labels of the studies that the runs held out",
            cure="name the cache that the runs were trained on",
        )


def _predict_part(
    table: _Table, here: Bool[np.ndarray, " n"], space: Space
) -> Float64[np.ndarray, "part 25 3"]:
    """Blend a part of the studies with what the others say: weights, losses and prior."""
    others = table.of(~here)
    cells = with_floor(weighted_prior(others.severities))
    fitted = others.and_prior(for_studies(cells, len(others.severities)))
    prior = for_studies(cells, int(here.sum()))
    part = table.of(here).and_prior(prior)
    return _or_prior(_mixed(part, space, _fit(fitted, space), _own_losses(fitted)), prior)


def _or_prior(
    words: Float64[np.ndarray, "n 25 3"], prior: Float64[np.ndarray, "n 25 3"]
) -> Float64[np.ndarray, "n 25 3"]:
    return np.where(np.isnan(words), prior, words)


def _mixed(
    table: _Table, space: Space, weights: GroupWeights, losses: GroupWeights
) -> Float64[np.ndarray, "n 25 3"]:
    shares = _blend(space, weights, losses).shares(table.asked)
    return mixed_words(table.words, shares, space=space)


def _blend(space: Space, weights: GroupWeights, losses: GroupWeights) -> Blend:
    members = range(len(next(iter(weights.values()))))
    return Blend(
        space=space,
        weights=by_cell([{g: float(w[m]) for g, w in weights.items()} for m in members]),
        losses=by_cell([{g: float(loss[m]) for g, loss in losses.items()} for m in members]),
    )


def _own_losses(table: _Table) -> GroupWeights:
    """Return the weighted loss of each member in each group over the cells of which it speaks."""
    losses = {group: np.full(len(table.words), np.inf) for group in GROUP_CELLS}
    for member, (words, is_asked) in enumerate(zip(table.words, table.asked, strict=True)):
        known = np.where(is_asked, table.severities, UNKNOWN).astype(np.int8)
        cell, weight = cell_losses(words, known)
        for group, cells in GROUP_CELLS.items():
            if weight[:, cells].any():
                losses[group][member] = cell[:, cells].sum() / weight[:, cells].sum()
    return losses


def _fit(table: _Table, space: Space) -> GroupWeights:
    """Return the best weights of every group; those of members that never speak of it are 0."""
    return {group: _fit_group(table, group, cells, space) for group, cells in GROUP_CELLS.items()}


def _fit_group(
    table: _Table, group: str, cells: list[int], space: Space
) -> Float64[np.ndarray, " m"]:
    """Fit the weights of a group; a member that says nothing of it has none."""
    asked_here, truth = table.asked[:, :, cells], table.severities[:, cells]
    counted = asked_here.any(axis=0) & (truth != UNKNOWN)
    speaks = np.asarray(asked_here[:, counted].any(axis=1), bool)
    weights = np.zeros(len(table.words))
    if counted.any():
        words = np.where(asked_here[..., None], table.words[:, :, cells], 1 / N_SEVERITIES)
        weights[speaks] = fit_weights(
            GroupCells(
                words=words[speaks][:, counted],
                asked=asked_here[speaks][:, counted],
                truth=truth[counted].astype(np.int64),
                study=np.nonzero(counted)[0],
                any_severe=group == "spinal",
            ),
            space,
        )
    return weights
