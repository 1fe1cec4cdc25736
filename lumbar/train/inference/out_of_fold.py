"""The out-of-fold predictions of runs: several at once, each study by those that held it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN, severities_of
from lumbar.cache.store import Cache
from lumbar.train.ensemble.combine import Voice, own_series, serve, together
from lumbar.train.evaluation.predictions import Predicted, read_oof
from lumbar.train.inference.run_models import voice_of
from lumbar.train.plan.folds import folds
from lumbar.train.run.config import RunConfig, read_config
from lumbar.train.run.folder import CONFIG, OOF, is_of_folds, runs_in
from lumbar.train.run.predictions import training_priors


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a run said of the studies that it held out; untrained cells hold its training prior."""

    run: Path
    config: RunConfig
    predicted: Predicted

    def voice(self, study_ids: Sequence[str]) -> Voice:
        """Return the run's words on some studies: NaN of those that it did not hold out."""
        words = dict(zip(self.predicted.study_ids, self.predicted.probabilities, strict=True))
        return voice_of(self.config, words, study_ids)


@dataclass(frozen=True, slots=True)
class Member:
    """The runs of one configuration, whose folds hold out different studies."""

    name: str
    held_out: tuple[HeldOut, ...]

    def voice(self, study_ids: Sequence[str]) -> Voice:
        """Return the words of all folds, each on the studies that it held out."""
        return together([held_out.voice(study_ids) for held_out in self.held_out])


def read_held_out(run: Path) -> HeldOut:
    """Read a run's predictions and configuration.

    Raises
    ------
    MissingError, InputError
        If there is no such run, or it has none yet, or they are damaged.
    """
    return HeldOut(run, read_config(run / CONFIG), read_oof(run / OOF))


def join_runs(runs: Sequence[Path], cache: Cache) -> Predicted:
    """Return what the runs say together of all studies that one of them held out.

    Folds of one configuration complete each other. Where several runs held out the same study,
    their words become one as `lumbar predict` makes them one: so its score is that of the ensemble.

    The training prior of a study is the mean of those of the runs that held it out.

    Raises
    ------
    MissingError, FormatError, InputError
        If a run is not there or damaged.
    """
    found = [read_held_out(run) for run in runs]
    study_ids = _all_studies(found)
    # Where no run speaks, all rows hold the priors of those that held the study out.
    stand_in = _mean([held_out.predicted for held_out in found], study_ids)
    served = serve(
        [held_out.voice(study_ids) for held_out in found], own_series(cache, study_ids), stand_in
    )
    priors = []
    for held_out in found:
        of_run = held_out.predicted.study_ids
        prior = training_priors(held_out.run, of_run)
        if prior is not None:
            priors.append(Predicted(of_run, prior))
    return Predicted(
        tuple(study_ids),
        served.probabilities,
        _mean(priors, study_ids) if len(priors) == len(found) else None,
        served.models == 0,
    )


def _mean(tables: Sequence[Predicted], study_ids: Sequence[str]) -> Float64[np.ndarray, "n 25 3"]:
    """Return the mean of the tables that have each study."""
    sums, counts = np.zeros((len(study_ids), 25, 3)), np.zeros((len(study_ids), 1, 1))
    row_of = {study_id: row for row, study_id in enumerate(study_ids)}
    for table in tables:
        rows = [row_of[study_id] for study_id in table.study_ids]
        sums[rows] += table.probabilities
        counts[rows] += 1
    return np.asarray(sums / counts)


def find_members(runs: Sequence[Path], cache: Cache) -> tuple[list[Member], list[str]]:
    """Put the folds of each configuration together; return the members and all their studies.

    The folder of several folds stands for all of them.

    Raises
    ------
    MissingError, InputError
        If a run is not there or damaged, has predictions of studies that it did not hold out, or
        two of one configuration held out the same study.
    """
    members: dict[str, list[HeldOut]] = {}
    found = [read_held_out(run) for run in runs_in(runs)]
    for held_out in found:
        _check_held_out(held_out, cache)
        members.setdefault(_but_the_fold(held_out.config), []).append(held_out)
    for of_one in members.values():
        _check_disjoint(of_one)
    named = [Member(_name(of_one[0].run), tuple(of_one)) for of_one in members.values()]
    return named, _all_studies(found)


def _name(run: Path) -> str:
    """Return what a run is called: a fold in the folder of several, as that folder."""
    folder = run.resolve()
    return folder.parent.name if is_of_folds(folder.parent) else folder.name


def _all_studies(found: Sequence[HeldOut]) -> list[str]:
    return sorted({study_id for held_out in found for study_id in held_out.predicted.study_ids})


def _but_the_fold(config: RunConfig) -> str:
    split = config.split.model_copy(update={"fold": 0})
    return config.model_copy(update={"split": split}).model_dump_json()


def _check_held_out(held_out: HeldOut, cache: Cache) -> None:
    """Deal the studies anew: what a run was trained on tells nothing of what it is worth."""
    severities = severities_of(cache.labels)
    labelled = (severities != UNKNOWN).any(axis=1)
    study_ids = cache.labels["study_id"].filter(labelled).to_list()
    split = held_out.config.split
    fold_of = folds(
        study_ids,
        severities[labelled],
        n_folds=split.folds,
        seed=split.seed,
        patients=cache.patients,
    )
    wrong = [s for s in held_out.predicted.study_ids if fold_of.get(s) != split.fold]
    if wrong:
        raise InputError(
            what="predictions of studies that the run did not hold out",
            where=held_out.run / OOF,
            got=f"{len(wrong)} of {len(held_out.predicted.study_ids)}: {', '.join(wrong[:3])}",
            expected=f"the studies of fold {split.fold} of {split.folds} by the labels of "
            f"{cache.root}",
            cure="name the cache that the run was trained on",
        )


def _check_disjoint(of_one: Sequence[HeldOut]) -> None:
    seen: dict[str, Path] = {}
    for held_out in of_one:
        for study_id in held_out.predicted.study_ids:
            if study_id in seen:
                raise InputError(
                    what="two runs of one configuration held out the same study",
                    where=held_out.run,
                    got=f"study {study_id}, which {seen[study_id]} held out too",
                    expected="the folds of a configuration, each once",
                    cure="leave one of them out, or train it with another seed",
                )
            seen[study_id] = held_out.run
