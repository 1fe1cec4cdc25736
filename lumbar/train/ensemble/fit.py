"""Fit a blend's weights to out-of-fold predictions, and say honestly what the blend is worth.

Members speak of studies that they were not trained on, so the training prior, the last member, does
too: weights are fitted to the prior that leaves each study out, and what is scored has the prior of
the other parts of the studies, in the blend as in every row beside it.

In each group of conditions the weights minimise the group's parts of the metric: for the spinal
group those of the cells and of "any severe" together. The score that is reported is cross-fitted:
the studies are dealt into parts, and each part is blended with weights fitted to the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN, Severities
from lumbar.cache.names import GROUP_CELLS, N_SEVERITIES
from lumbar.train.ensemble.blend import Blend, Space, by_cell, mixed_words, with_prior
from lumbar.train.ensemble.combine import Voice, asked
from lumbar.train.ensemble.solver import GroupCells, fit_weights
from lumbar.train.evaluation.baselines import (
    for_studies,
    leave_one_out_prior,
    parts_by_prior,
    weighted_prior,
    with_floor,
)
from lumbar.train.evaluation.bootstrap import (
    Intervals,
    by_patient,
    difference_intervals,
    score_intervals,
)
from lumbar.train.evaluation.metric import Score, cell_losses, score, study_terms
from lumbar.train.evaluation.predictions import Predicted
from lumbar.train.plan.folds import folds

PARTS_OF_STUDIES = 5
"""Parts of the cross-fit."""

SEED = 0

GroupWeights = dict[str, Float64[np.ndarray, " m"]]


@dataclass(frozen=True, slots=True)
class PartsByPrior:
    """The parts of scores, and ``total``, in which the training prior stands in somewhere."""

    blend: list[str]
    mean: list[str]
    members: list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendFit:
    """A blend, and its worth out of fold.

    ``weights`` and ``losses``, those of each member alone where it speaks, are by group; infinite
    where a member says nothing. The training prior's stand behind those of the members: without it
    a blend of models that are worse than the prior would be worse than the one that says least.
    ``score`` is cross-fitted, ``fitted_score`` is that of the very studies that the weights were
    fitted to. ``members`` are the scores of each member alone, ``mean`` is that of their plain mean
    and ``training_prior`` that of the prior; wherever the prior stands in, it is that of the other
    parts, as in the blend. ``predicted`` are the cross-fitted predictions, and ``by_prior`` the
    parts of each score, by the blend, the mean and the members, that hold a prior's cell.
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
    training_prior: Score
    by_prior: PartsByPrior
    best: int
    against_best: Intervals
    predicted: Predicted

    @property
    def n_studies(self) -> int:
        """How many studies the blend was fitted to."""
        return len(self.predicted.study_ids)

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
    What predicts in the end has the prior of all the studies; each weight is fitted to, and each
    number is of, a prior that does not know the study. ``patients`` names the patient of studies
    that share theirs, which stay together.

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
    crossed = _cross_fit(table, parts, space)
    prior = crossed.prior
    left_out = leave_one_out_prior(severities)
    whole = table.and_prior(left_out)
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
    terms = by_patient(study_terms(crossed.words, severities), study_ids, patients)
    fitted = mixed_words(
        whole.words, _blend(space, weights, losses).shares(whole.asked), space=space
    )
    return BlendFit(
        space=space,
        weights=weights,
        losses=losses,
        score=score(crossed.words, severities),
        intervals=score_intervals(terms),
        fitted_score=score(_or_prior(fitted, left_out), severities),
        mean=score(_or_prior(mean, prior), severities),
        members=scores,
        training_prior=score(prior, severities),
        by_prior=PartsByPrior(
            blend=parts_by_prior(crossed.by_prior, severities),
            mean=parts_by_prior(np.asarray((~table.asked).all(axis=0)), severities),
            members=[parts_by_prior(~is_asked, severities) for is_asked in table.asked],
        ),
        best=best,
        against_best=difference_intervals(
            terms, by_patient(study_terms(alone[best], severities), study_ids, patients)
        ),
        predicted=Predicted(tuple(study_ids), crossed.words, prior, crossed.by_prior),
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


@dataclass(frozen=True, slots=True)
class _Blended:
    """Studies blended with what others say: the result, their prior, and where it is the prior."""

    words: Float64[np.ndarray, "n 25 3"]
    prior: Float64[np.ndarray, "n 25 3"]
    by_prior: Bool[np.ndarray, "n 25"]


def _cross_fit(table: _Table, parts: Int64[np.ndarray, " n"], space: Space) -> _Blended:
    """Blend each part of the studies with what the other parts say."""
    whole = _Blended(
        np.empty(table.words.shape[1:]), np.empty(table.words.shape[1:]), table.asked[0].copy()
    )
    for part in range(PARTS_OF_STUDIES):
        here = parts == part
        blended = _predict_part(table, here, space)
        whole.words[here], whole.prior[here] = blended.words, blended.prior
        whole.by_prior[here] = blended.by_prior
    return whole


def _predict_part(table: _Table, here: Bool[np.ndarray, " n"], space: Space) -> _Blended:
    """Blend a part of the studies with what the others say: weights, losses and prior.

    The weights are fitted to a prior that leaves each of the others out in its turn: one that knew
    its label would look better there than the prior that this part is blended with.
    """
    others = table.of(~here)
    fitted = others.and_prior(leave_one_out_prior(others.severities))
    prior = for_studies(with_floor(weighted_prior(others.severities)), int(here.sum()))
    part = table.of(here).and_prior(prior)
    shares = _blend(space, _fit(fitted, space), _own_losses(fitted)).shares(part.asked)
    words = _or_prior(mixed_words(part.words, shares, space=space), prior)
    return _Blended(words, prior, (shares[:-1] == 0).all(axis=0))


def _or_prior(
    words: Float64[np.ndarray, "n 25 3"], prior: Float64[np.ndarray, "n 25 3"]
) -> Float64[np.ndarray, "n 25 3"]:
    return np.where(np.isnan(words), prior, words)


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
