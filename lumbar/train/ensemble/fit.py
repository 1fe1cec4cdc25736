"""Fit a blend's weights to out-of-fold predictions, and estimate the blend's score without bias.

Members predict studies that they were not trained on. The training prior, the last member, must not
know a study's label either: weights are fitted with a prior that leaves each study out, and every
score counts the prior of the other parts of the studies.

In each group of conditions the weights minimise the group's parts of the metric: for the spinal
group the loss of the cells plus that of "any severe". The reported score is cross-fitted: studies
are divided into parts, and each part is blended with weights fitted to the other parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN, Severities
from lumbar.cache.names import GROUP_CELLS, N_SEVERITIES
from lumbar.train.ensemble.blend import Blend, Space, by_cell, weighted_mean, with_prior
from lumbar.train.ensemble.combine import EnsembleMember, eligible_members, stacked
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
from lumbar.train.evaluation.predictions import Predictions
from lumbar.train.plan.folds import folds

PARTS_OF_STUDIES = 5
"""Parts of the cross-fit."""

SEED = 0

GroupWeights = dict[str, Float64[np.ndarray, " m"]]


@dataclass(frozen=True, slots=True)
class PartsByPrior:
    """The parts of scores, and ``total``, that contain cells of the training prior."""

    blend: list[str]
    mean: list[str]
    members: list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendFit:
    """A blend, and its scores out of fold.

    ``weights`` and ``losses`` are by group, the training prior's last. A loss is that of a member
    alone on the cells that it predicts, infinite where it predicts none. With the prior as a member
    a blend is not worse than the prior, however bad the other members are.
    ``score`` is cross-fitted; ``fitted_score`` is on the studies that the weights were fitted to.
    ``members`` are the scores of each member alone, ``mean`` that of their plain mean, and
    ``training_prior`` that of the prior; all count the same prior in cells without a prediction.
    ``predictions`` are the cross-fitted ones. ``by_prior`` are the parts of the scores that contain
    cells of the prior. ``against_best`` are intervals of the blend's score minus that of the best
    member.
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
    predictions: Predictions

    @property
    def n_studies(self) -> int:
        """How many studies the blend was fitted to."""
        return len(self.predictions.study_ids)

    def blend(self) -> Blend:
        """Return the weights by cell."""
        return _blend(self.space, self.weights, self.losses)


@dataclass(frozen=True, slots=True)
class _Table:
    """What is blended: studies, probabilities (m, n, 25, 3), who is eligible, and the labels."""

    study_ids: Sequence[str]
    probabilities: Float64[np.ndarray, "m n 25 3"]
    eligible: Bool[np.ndarray, "m n 25"]
    severities: Severities

    def of(self, studies: Bool[np.ndarray, " n"]) -> _Table:
        return _Table(
            [self.study_ids[row] for row in np.flatnonzero(studies).tolist()],
            self.probabilities[:, studies],
            self.eligible[:, studies],
            self.severities[studies],
        )

    def and_prior(self, prior: Float64[np.ndarray, "n 25 3"]) -> _Table:
        with_it = with_prior(self.probabilities, self.eligible, prior)
        return _Table(self.study_ids, *with_it, self.severities)

    def blended(self, blend: Blend) -> Float64[np.ndarray, "n 25 3"]:
        """Return the blend, NaN in cells without an eligible member."""
        return weighted_mean(self.probabilities, blend.shares(self.eligible), space=blend.space)


def fit_blend(
    members: Sequence[EnsembleMember],
    own: Bool[np.ndarray, "n 25"],
    severities: Severities,
    *,
    space: Space = "probability",
    patients: Mapping[str, str] | None = None,
) -> BlendFit:
    """Fit the weights of members, which predict studies that they were not trained on.

    All members have the same studies, and ``severities`` are theirs; ``own`` is what
    `lumbar.train.ensemble.combine.own_series` returns for them. ``patients`` names the patient of
    each study that shares one with others; these studies stay in one part.

    Raises
    ------
    InputError
        If there are fewer than two members, fewer labelled studies than parts, or no member
        predicts a labelled cell.
    """
    study_ids = members[0].predictions.study_ids
    table = _Table(study_ids, stacked(members), eligible_members(members, own), severities)
    _check(table)
    crossed = _cross_fit(table, space, patients)
    blended, prior = crossed.probabilities, crossed.training_prior
    assert prior is not None
    left_out = leave_one_out_prior(severities)
    whole = table.and_prior(left_out)
    weights, losses = _fit(whole, space), _own_losses(whole)
    alone = [
        _or_prior(np.where(eligible[..., None], probabilities, np.nan), prior)
        for probabilities, eligible in zip(table.probabilities, table.eligible, strict=True)
    ]
    mean = _or_prior(table.blended(Blend.equal(len(members))), prior)
    fitted = _or_prior(whole.blended(_blend(space, weights, losses)), left_out)
    scores = [score(probabilities, severities) for probabilities in alone]
    best = int(np.argmin([one.total for one in scores]))
    terms, of_best = (
        by_patient(study_terms(probabilities, severities), study_ids, patients)
        for probabilities in (blended, alone[best])
    )
    return BlendFit(
        space=space,
        weights=weights,
        losses=losses,
        score=score(blended, severities),
        intervals=score_intervals(terms),
        fitted_score=score(fitted, severities),
        mean=score(mean, severities),
        members=scores,
        training_prior=score(prior, severities),
        by_prior=PartsByPrior(
            blend=parts_by_prior(crossed.prior_cells, severities),
            mean=parts_by_prior(np.asarray((~table.eligible).all(axis=0)), severities),
            members=[parts_by_prior(~eligible, severities) for eligible in table.eligible],
        ),
        best=best,
        against_best=difference_intervals(terms, of_best),
        predictions=crossed,
    )


def _check(table: _Table) -> None:
    if len(table.probabilities) < 2:
        raise InputError(
            what="members of a blend",
            got=len(table.probabilities),
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
    if not (table.eligible & (table.severities != UNKNOWN)).any():
        raise InputError(
            what="nothing to fit a blend to",
            got="no labelled cell that a member predicts",
            expected="labels of the studies that the runs held out",
            cure="name the cache that the runs were trained on",
        )


def _cross_fit(table: _Table, space: Space, patients: Mapping[str, str] | None) -> Predictions:
    """Return each part of the studies blended with weights fitted to the other parts."""
    part_of = folds(
        table.study_ids, table.severities, n_folds=PARTS_OF_STUDIES, seed=SEED, patients=patients
    )
    parts = np.array([part_of[study_id] for study_id in table.study_ids])
    blended = [_predict_part(table, parts == part, space) for part in range(PARTS_OF_STUDIES)]
    return Predictions.concatenate(blended).of(table.study_ids)


def _predict_part(table: _Table, here: Bool[np.ndarray, " n"], space: Space) -> Predictions:
    """Blend a part of the studies with the weights, the losses and the prior of the others.

    The weights are fitted with a prior that leaves each study out. A prior that knew the label of a
    study would look better there than the one with which this part is blended.
    """
    others = table.of(~here)
    fitted = others.and_prior(leave_one_out_prior(others.severities))
    prior = for_studies(with_floor(weighted_prior(others.severities)), int(here.sum()))
    part = table.of(here).and_prior(prior)
    blend = _blend(space, _fit(fitted, space), _own_losses(fitted))
    by_prior = np.asarray((blend.shares(part.eligible)[:-1] == 0).all(axis=0))
    blended = _or_prior(part.blended(blend), prior)
    return Predictions(tuple(part.study_ids), blended, prior, by_prior)


def _or_prior(
    probabilities: Float64[np.ndarray, "n 25 3"], prior: Float64[np.ndarray, "n 25 3"]
) -> Float64[np.ndarray, "n 25 3"]:
    return np.where(np.isnan(probabilities), prior, probabilities)


def _blend(space: Space, weights: GroupWeights, losses: GroupWeights) -> Blend:
    members = range(len(next(iter(weights.values()))))
    return Blend(
        space=space,
        weights=by_cell([{g: float(w[m]) for g, w in weights.items()} for m in members]),
        losses=by_cell([{g: float(loss[m]) for g, loss in losses.items()} for m in members]),
    )


def _own_losses(table: _Table) -> GroupWeights:
    """Return the weighted loss of each member in each group, over the cells that it predicts."""
    losses = {group: np.full(len(table.probabilities), np.inf) for group in GROUP_CELLS}
    for member, probabilities in enumerate(table.probabilities):
        known = np.where(table.eligible[member], table.severities, UNKNOWN).astype(np.int8)
        cell, weight = cell_losses(probabilities, known)
        for group, cells in GROUP_CELLS.items():
            if weight[:, cells].any():
                losses[group][member] = cell[:, cells].sum() / weight[:, cells].sum()
    return losses


def _fit(table: _Table, space: Space) -> GroupWeights:
    """Return the best weights by group; a member that predicts none of its cells has weight 0."""
    return {group: _fit_group(table, group, cells, space) for group, cells in GROUP_CELLS.items()}


def _fit_group(
    table: _Table, group: str, cells: list[int], space: Space
) -> Float64[np.ndarray, " m"]:
    eligible, truth = table.eligible[:, :, cells], table.severities[:, cells]
    counted = eligible.any(axis=0) & (truth != UNKNOWN)
    fitted = np.asarray(eligible[:, counted].any(axis=1), bool)
    weights = np.zeros(len(table.probabilities))
    if counted.any():
        filled = np.where(eligible[..., None], table.probabilities[:, :, cells], 1 / N_SEVERITIES)
        weights[fitted] = fit_weights(
            GroupCells(
                probabilities=filled[fitted][:, counted],
                eligible=eligible[fitted][:, counted],
                truth=truth[counted].astype(np.int64),
                study=np.nonzero(counted)[0],
                any_severe=group == "spinal",
            ),
            space,
        )
    return weights
