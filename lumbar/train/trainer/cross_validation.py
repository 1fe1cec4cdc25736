"""Train all folds of a run one after the other, and join their held-out predictions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumbar.cache.store import Cache
from lumbar.train.evaluation.evaluate import evaluate
from lumbar.train.evaluation.predictions import join, read_oof, write_oof
from lumbar.train.run.cache import check_unchanged
from lumbar.train.run.config import RunConfig
from lumbar.train.run.data import RunData
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.folder import CONFIG, OOF, claim, fold_folder, write_config
from lumbar.train.run.predictions import read_run
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.events import FoldsFinished, FoldStarted, TrainEvent
from lumbar.train.trainer.loop import train


def train_folds(
    cache: Cache, config: RunConfig, run: Path, *, resume: bool = False, **train_options: Any
) -> Iterator[FoldStarted | TrainEvent | FoldsFinished]:
    """Train a run for each of ``split.folds``, and join their predictions of held-out studies.

    ``train_options`` are those of `lumbar.train.trainer.loop.train`. On resume, finished folds stay
    as they are and the one that was stopped goes on.

    Raises
    ------
    InputError, BusyError, DivergedError
        As `lumbar.train.trainer.loop.train` does.
    """
    ranks: Ranks = train_options.get("ranks") or Ranks()
    data = RunData.of(cache, split_samples(cache, config))
    if resume:
        check_unchanged(run, data, warn_unknown=ranks.is_first)
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
        files = [fold_folder(run, fold) / OOF for fold in range(config.split.folds)]
        write_oof(run / OOF, join([read_oof(file) for file in files], files))
    ranks.wait()
    evaluation = evaluate(read_run(run), cache.labels, where=run / OOF)
    assert evaluation.training_prior is not None, "every fold has left its checkpoint"
    yield FoldsFinished(run, evaluation.score, evaluation.training_prior)
