"""A run's folder: who may write it, and what it holds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from lumbar.cache.errors import InputError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.files.lock import LOCK
from lumbar.train.run.checkpoint import BEST, LAST
from lumbar.train.run.config import RunConfig, read_config
from lumbar.train.run.data import DATA, RunData

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
OOF = "oof.parquet"

_WRITTEN_ASIDE = re.compile(rf"\.({re.escape(CONFIG)}|{re.escape(DATA)})\.[0-9]+")
USE_BEST = (
    "evaluate, predict and export work with what is there; to train, start another run by "
    "--config with this one's config.toml"
)


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

    The configuration is written last: a folder with it can be resumed, and one without it, left by
    a killed run, is free.
    """
    if not _is_free(run):
        resume = f"resume it by `lumbar train --resume {shlex.quote(str(run))}`, or "
        raise InputError(
            what="the run's folder is not empty",
            where=run,
            got="a folder that holds something" if run.is_dir() else "a file",
            expected="a new or empty folder",
            cure=f"{resume if (run / CONFIG).is_file() else ''}name another --run",
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
    """Tell whether a run has a checkpoint to resume from; one killed before its first has none.

    Raises
    ------
    MissingError, InputError
        If the folder holds no run, or epochs are recorded and their checkpoint is gone.
    """
    if (run / LAST).exists():
        return True
    left = find_remains(run)
    if left:
        raise InputError(
            what="the run has no checkpoint to resume from",
            where=run / LAST,
            got=f"no such file; still there: {left}",
            expected="the checkpoint that every epoch leaves",
            cure=USE_BEST,
        )
    read_config(run / CONFIG)  # a folder of something else is no run
    return False


def find_remains(run: Path) -> str:
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
