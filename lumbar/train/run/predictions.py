"""A run's predictions of its held-out studies, with its training prior and the cells that hold it.

The training prior of a study is that of the run that held it out; with several folds, of its fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from lumbar.cache.errors import MissingError
from lumbar.train.ensemble.blend import BLEND_FILE, read_blend
from lumbar.train.evaluation.baselines import CellPrior, for_studies
from lumbar.train.evaluation.predictions import Predictions, read_oof
from lumbar.train.loss.config import trained_cells
from lumbar.train.run.checkpoint import BEST, LAST, load_prior
from lumbar.train.run.config import RunConfig, read_config
from lumbar.train.run.folder import CONFIG, OOF, is_of_folds, runs_in


def read_run(folder: Path) -> Predictions:
    """Read the held-out predictions of a run, of a run of all folds, or of a blend.

    Raises
    ------
    MissingError, FormatError, InputError
        If there are none, or a file of the folder is damaged.
    """
    predictions = read_oof(folder / OOF)
    if (folder / CONFIG).is_file():
        untrained = untrained_cells(read_config(folder / CONFIG))
        return replace(
            predictions,
            training_prior=training_priors(folder, predictions.study_ids),
            by_prior=_repeated(untrained, predictions),
        )
    if predictions.by_prior is None and (folder / BLEND_FILE).is_file():
        # A blend without these columns tells only whether it had a model of a condition at all.
        nobody = np.isinf(read_blend(folder).blend().losses[:-1]).all(axis=0)
        return replace(predictions, by_prior=_repeated(nobody, predictions))
    return predictions


def training_priors(run: Path, study_ids: Sequence[str]) -> Float64[np.ndarray, "n 25 3"] | None:
    """Return the training prior of each study that a run held out, None if checkpoints are gone.

    Raises
    ------
    MissingError, FormatError, InputError
        If a fold's predictions are gone, or a checkpoint is damaged.
    """
    try:
        if not is_of_folds(run):
            return for_studies(_prior(run), len(study_ids))
        of_study = {
            study_id: prior
            for fold in runs_in([run])
            for prior in [_prior(fold)]
            for study_id in read_oof(fold / OOF).study_ids
        }
    except MissingError:
        return None
    return np.stack([of_study[study_id] for study_id in study_ids])


def untrained_cells(config: RunConfig) -> Bool[np.ndarray, "25"]:
    """Return the cells that a run does not train; its predictions hold its prior there."""
    return ~np.asarray(trained_cells(config.loss, config.series_types).numpy(), bool)


def _prior(run: Path) -> CellPrior:
    """Return the training prior of a run, which both of its checkpoints hold."""
    return load_prior(run / BEST if (run / BEST).exists() else run / LAST)


def _repeated(cells: Bool[np.ndarray, "25"], of: Predictions) -> Bool[np.ndarray, "n 25"]:
    return np.repeat(cells[None], len(of.study_ids), axis=0)
