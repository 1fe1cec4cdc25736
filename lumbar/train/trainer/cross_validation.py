"""All folds of a run, one after the other, and the predictions of all studies when held out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumbar.cache.store import Cache
from lumbar.train.evaluation.evaluate import evaluate_predicted
from lumbar.train.evaluation.predictions import read_oof, write_oof
from lumbar.train.run.cache import check_unchanged
from lumbar.train.run.config import RunConfig
from lumbar.train.run.data import RunData
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.folder import CONFIG, OOF, StudyPredictions, claim, fold_folder, write_config
from lumbar.train.run.predictions import read_run
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.events import FoldsFinished, FoldStarted, TrainEvent
from lumbar.train.trainer.loop import train


def train_folds(
    cache: Cache, config: RunConfig, run: Path, *, resume: bool = False, **train_options: Any
) -> Iterator[FoldStarted | TrainEvent | FoldsFinished]:
    """Train a run for each of ``split.folds``, and join what each said of its held-out studies.

    ``train_options`` are those of `lumbar.train.trainer.loop.train`. Resumed, folds that are
    finished stay as they are and the one that was stopped goes on.

    Raises
    ------
    InputError, BusyError, DivergedError
        As `lumbar.train.trainer.loop.train` does.
    """
    ranks: Ranks = train_options.get("ranks") or Ranks()
    data = RunData.of(cache, split_samples(cache, config))
    if resume:
        check_unchanged(run, data, say_unknown=ranks.is_first)
    elif ranks.is_first:
        claim(run, config, data, of_folds=True)
    ranks.wait()
    if resume and ranks.is_first:
        data.write(run)
        write_config(run, config)
    for fold in range(config.split.folds):
        folder = fold_folder(run, fold)
        started = (folder / CONFIG).exists()
        ranks.wait()
        split = config.split.model_copy(update={"fold": fold})
        of_fold = config.model_copy(update={"split": split})
        yield FoldStarted(fold, config.split.folds)
        yield from train(cache, of_fold, folder, resume=started, **train_options)
    if ranks.is_first:
        write_oof(run / OOF, _joined(run, config.split.folds))
    ranks.wait()
    evaluation = evaluate_predicted(read_run(run), cache.labels, where=run / OOF)
    assert evaluation.training_prior is not None, "every fold has left its checkpoint"
    yield FoldsFinished(run, evaluation.score, evaluation.training_prior)


def _joined(run: Path, folds: int) -> StudyPredictions:
    """Return what each fold said of the studies that it held out: every study once."""
    known: StudyPredictions = {}
    for fold in range(folds):
        said = read_oof(fold_folder(run, fold) / OOF)
        known |= dict(zip(said.study_ids, said.probabilities, strict=True))
    return known
