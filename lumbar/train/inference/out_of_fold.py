"""The out-of-fold predictions of runs: several at once, each study by those that held it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.ensemble.combine import EnsembleMember, combine, mean_member, own_series
from lumbar.train.evaluation.predictions import Predictions, read_oof
from lumbar.train.inference.run_models import member_of
from lumbar.train.run.config import RunConfig, read_config
from lumbar.train.run.folder import CONFIG, OOF, is_of_folds, runs_in
from lumbar.train.run.predictions import training_priors
from lumbar.train.run.split import deal_folds


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A run's predictions of its held-out studies; untrained cells hold its training prior."""

    run: Path
    config: RunConfig
    predictions: Predictions

    def member(self, study_ids: Sequence[str]) -> EnsembleMember:
        """Return the run's predictions of some studies: NaN for those that it did not hold out."""
        return member_of(self.config, self.predictions.of(study_ids))


@dataclass(frozen=True, slots=True)
class ConfigurationRuns:
    """The runs of one configuration, whose folds hold out different studies."""

    name: str
    held_out: tuple[HeldOut, ...]

    def member(self, study_ids: Sequence[str]) -> EnsembleMember:
        """Return the predictions of all folds, each of the studies that it held out."""
        return mean_member([held_out.member(study_ids) for held_out in self.held_out])


def read_held_out(run: Path) -> HeldOut:
    """Read a run's predictions and configuration.

    Raises
    ------
    MissingError, InputError
        If there is no such run, or its predictions are absent or damaged.
    """
    return HeldOut(run, read_config(run / CONFIG), read_oof(run / OOF))


def join_runs(runs: Sequence[Path], cache: Cache) -> Predictions:
    """Return the runs' predictions of all studies that one of them held out.

    Folds of one configuration complete each other. Predictions of several runs of one study are
    combined as `lumbar predict` combines them, so their score is that of the ensemble. The training
    prior of a study is the mean of those of the runs that held it out.

    Raises
    ------
    MissingError, FormatError, InputError
        If a run is not there or damaged.
    """
    found = [read_held_out(run) for run in runs]
    study_ids = _all_studies(found)
    # A cell without a model holds, in each run's table, the prior of that run.
    prior = _mean([held_out.predictions for held_out in found], study_ids)
    members = [held_out.member(study_ids) for held_out in found]
    combined = combine(members, own_series(cache, study_ids), prior)
    priors = []
    for held_out in found:
        of_run = held_out.predictions.study_ids
        known = training_priors(held_out.run, of_run)
        if known is None:
            return replace(combined.predictions, training_prior=None)
        priors.append(Predictions(of_run, known))
    return replace(combined.predictions, training_prior=_mean(priors, study_ids))


def _mean(tables: Sequence[Predictions], study_ids: Sequence[str]) -> Float64[np.ndarray, "n 25 3"]:
    """Return, for each study, the mean of the tables that have it."""
    every = np.stack([table.of(study_ids).probabilities for table in tables])
    has = np.stack([np.isin(study_ids, table.study_ids) for table in tables])
    total: Float64[np.ndarray, "n 25 3"] = np.where(has[..., None, None], every, 0).sum(axis=0)
    return np.asarray(total / has.sum(axis=0)[:, None, None])


def find_members(runs: Sequence[Path], cache: Cache) -> tuple[list[ConfigurationRuns], list[str]]:
    """Group runs by configuration, folds left aside; return the groups and all their studies.

    The folder of several folds stands for all of them.

    Raises
    ------
    MissingError, InputError
        If a run is not there or damaged, has predictions of studies that it did not hold out, or
        two of one configuration held out the same study.
    """
    groups: dict[str, list[HeldOut]] = {}
    found = [read_held_out(run) for run in runs_in(runs)]
    for held_out in found:
        _check_held_out(held_out, cache)
        groups.setdefault(_but_the_fold(held_out.config), []).append(held_out)
    for of_one in groups.values():
        _check_disjoint(of_one)
    named = [ConfigurationRuns(_name(of_one[0].run), tuple(of_one)) for of_one in groups.values()]
    return named, _all_studies(found)


def _name(run: Path) -> str:
    """Return a run's name: that of its folder, or of the folder that holds all folds."""
    folder = run.resolve()
    return folder.parent.name if is_of_folds(folder.parent) else folder.name


def _all_studies(found: Sequence[HeldOut]) -> list[str]:
    return sorted({study_id for held_out in found for study_id in held_out.predictions.study_ids})


def _but_the_fold(config: RunConfig) -> str:
    split = config.split.model_copy(update={"fold": 0})
    return config.model_copy(update={"split": split}).model_dump_json()


def _check_held_out(held_out: HeldOut, cache: Cache) -> None:
    """Refuse predictions of studies that the run was trained on: their score is too good."""
    split = held_out.config.split
    try:
        fold_of = deal_folds(cache, split)
    except InputError:  # another cache, of fewer studies than folds
        fold_of = {}
    wrong = [s for s in held_out.predictions.study_ids if fold_of.get(s) != split.fold]
    if wrong:
        raise InputError(
            what="predictions of studies that the run did not hold out",
            where=held_out.run / OOF,
            got=f"{len(wrong)} of {len(held_out.predictions.study_ids)}: {', '.join(wrong[:3])}",
            expected=f"the studies of fold {split.fold} of {split.folds} by the labels of "
            f"{cache.root}",
            cure="name the cache that the run was trained on",
        )


def _check_disjoint(of_one: Sequence[HeldOut]) -> None:
    seen: dict[str, Path] = {}
    for held_out in of_one:
        for study_id in held_out.predictions.study_ids:
            if study_id in seen:
                raise InputError(
                    what="two runs of one configuration held out the same study",
                    where=held_out.run,
                    got=f"study {study_id}, which {seen[study_id]} held out too",
                    expected="the folds of a configuration, each once",
                    cure="leave one of them out, or train it with another seed",
                )
            seen[study_id] = held_out.run
