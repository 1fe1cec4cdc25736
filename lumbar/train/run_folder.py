"""A run's folder: claimed once, gone on with by those to whom it belongs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lumbar.cache.errors import FormatError, InputError
from lumbar.cache.lock import LOCK
from lumbar.cache.tables import write_atomically
from lumbar.train.checkpoint import BEST, LAST, TrainedModel, load_checkpoint
from lumbar.train.config import RunConfig, read_config
from lumbar.train.more_epochs import check_epochs, with_epochs
from lumbar.train.oof import oof_table, write_parquet
from lumbar.train.run_data import DATA, RunData
from lumbar.train.training import Training

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
OOF = "oof.parquet"

_WRITTEN_ASIDE = re.compile(rf"\.({re.escape(CONFIG)}|{re.escape(DATA)})\.[0-9]+")
_USE_BEST = (
    "what is there serves `lumbar evaluate`, predict and export; to train, begin another run by "
    "--config with this one's config.toml"
)

StudyPredictions = dict[str, Float64[np.ndarray, "25 3"]]


def fold_folder(run: Path, fold: int) -> Path:
    """Return the folder of one fold's run."""
    return run / f"fold-{fold}"


def is_of_folds(run: Path) -> bool:
    """Say whether a folder is that of several folds' runs."""
    return (run / CONFIG).is_file() and fold_folder(run, 0).is_dir()


def runs_in(named: Sequence[Path]) -> list[Path]:
    """Return runs: in the place of a folder of several folds, those of all its folds.

    Raises
    ------
    InputError
        If the configuration of such a folder is damaged.
    """
    runs: list[Path] = []
    for path in named:
        if is_of_folds(path):
            folds = read_config(path / CONFIG).split.folds
            runs += [fold_folder(path, fold) for fold in range(folds)]
        else:
            runs.append(path)
    return runs


def claim(run: Path, config: RunConfig, data: RunData, *, of_folds: bool = False) -> None:
    """Make a run's folder; raise `InputError` for one that holds something.

    The configuration comes last: a folder without it is nobody's, whatever a run that was killed
    left in it, and one with it can be gone on with.
    """
    if not _is_free(run):
        goes_on = f"go on with it by `lumbar train --resume {shlex.quote(str(run))}`, or "
        raise InputError(
            what="the run's folder is not empty",
            where=run,
            got="a folder that holds something" if run.is_dir() else "a file",
            expected="a new or empty folder",
            cure=f"{goes_on if (run / CONFIG).is_file() else ''}name another --run",
        )
    run.mkdir(parents=True, exist_ok=True)
    data.write(run)
    if of_folds:
        fold_folder(run, 0).mkdir(exist_ok=True)
    write_config(run, config)


def write_config(run: Path, config: RunConfig) -> None:
    """Write the resolved configuration into a run's folder."""
    write_atomically(run / CONFIG, config.to_toml().encode())


def _is_free(run: Path) -> bool:
    """Tell whether a folder is new, empty, or left by a run that was killed while claiming it."""
    if not run.exists():
        return True
    return run.is_dir() and all(
        path.name in {DATA, LOCK}
        or _WRITTEN_ASIDE.fullmatch(path.name)
        or (path == fold_folder(run, 0) and not any(path.iterdir()))
        for path in run.iterdir()
    )


def has_checkpoint(run: Path) -> bool:
    """Tell whether a run can go on from a checkpoint, or begins: it was killed before its first.

    Raises
    ------
    MissingError, InputError
        If the folder holds no run, or epochs are recorded and their checkpoint is gone.
    """
    if (run / LAST).exists():
        return True
    left = _what_is_left(run)
    if left:
        raise InputError(
            what="the run has no checkpoint to go on from",
            where=run / LAST,
            got=f"no such file; still there: {left}",
            expected="the checkpoint that every epoch leaves",
            cure=_USE_BEST,
        )
    read_config(run / CONFIG)  # a folder of something else is no run
    return False


def restore(run: Path, trained: TrainedModel, training: Training) -> RunConfig:
    """Put the last checkpoint of a run into the model, the optimiser and the generators.

    Returns the configuration that it was written with, which may have other ``optim.epochs``.

    Raises
    ------
    MissingError, FormatError, InputError
        If there is none, or it is of another configuration or another cache.
    """
    try:
        saved, state = load_checkpoint(run / LAST)
    except FormatError as error:
        left = _what_is_left(run) or "nothing that is trained"
        raise FormatError(
            what="the last checkpoint cannot be read",
            where=run / LAST,
            got=f"{error}; still there: {left}",
            expected="the checkpoint that the last epoch left",
            cure=_USE_BEST,
        ) from error
    if with_epochs(saved.config, trained.config.optim.epochs) != trained.config or state is None:
        raise InputError(
            what="the checkpoint is of another configuration",
            where=run / LAST,
            got=f"another than {run / CONFIG} holds",
            expected="the configuration that the run was started with",
            cure=f"put {CONFIG} back as it was, or start another run",
        )
    # The prior tells the training studies: with others there would be another.
    if saved.preprocess != trained.preprocess or not np.array_equal(saved.prior, trained.prior):
        raise InputError(
            what="the checkpoint is of another cache",
            where=run / LAST,
            got="another preprocessing, or other studies to train on",
            expected="the cache that the run was started on",
            cure="resume on that cache or start another run",
        )
    check_epochs(
        saved.config,
        trained.config,
        done=state["next_epoch"],
        best=state["best_epoch"],
        where=run,
    )
    trained.model.load_state_dict(saved.model.state_dict())
    training.restore(state)
    return saved.config


def _what_is_left(run: Path) -> str:
    """Name what a run has of its epochs beside the last checkpoint, "" where it has nothing."""
    left = []
    if (run / BEST).exists():
        left.append(f"{BEST}, the best epoch's weights")
    metrics = run / METRICS
    epochs = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
    if epochs:
        left.append(f"the metrics of {epochs} epochs")
    if (run / OOF).exists():
        left.append(f"{OOF}, the predictions of the held-out studies")
    return ", ".join(left)


def write_oof(path: Path, known: StudyPredictions) -> None:
    """Write held-out predictions: one row a study in order, 75 columns of float32."""
    table = oof_table(list(known), np.stack(list(known.values())))
    write_parquet(path, table.sort("study_id"))
