"""A run's folder: claimed once, gone on with by those to whom it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lumbar.cache.errors import InputError
from lumbar.cache.tables import write_atomically
from lumbar.train.checkpoint import LAST, TrainedModel, load_checkpoint
from lumbar.train.config import RunConfig, read_config
from lumbar.train.oof import oof_table, write_parquet
from lumbar.train.training import Training

CONFIG = "config.toml"
OOF = "oof.parquet"

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


def claim(run: Path, config: RunConfig) -> None:
    """Make a run's folder; raise `InputError` for one that holds something."""
    if run.exists() and not (run.is_dir() and not any(run.iterdir())):
        raise InputError(
            what="the run's folder is not empty",
            where=run,
            got="a folder that holds something" if run.is_dir() else "a file",
            expected="a new or empty folder",
            cure="go on with it by --resume, or name another --run",
        )
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / CONFIG, config.to_toml().encode())


def restore(run: Path, trained: TrainedModel, training: Training) -> None:
    """Put the last checkpoint of a run into the model, the optimiser and the generators.

    Raises
    ------
    MissingError, FormatError, InputError
        If there is none, or it is of another configuration or another cache.
    """
    saved, state = load_checkpoint(run / LAST)
    if saved.config != trained.config or state is None:
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
    trained.model.load_state_dict(saved.model.state_dict())
    training.restore(state)


def write_oof(path: Path, known: StudyPredictions) -> None:
    """Write held-out predictions: one row a study in order, 75 columns of float32."""
    table = oof_table(list(known), np.stack(list(known.values())))
    write_parquet(path, table.sort("study_id"))
