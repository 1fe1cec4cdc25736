"""Resume a run: load its last checkpoint, and change its number of epochs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lumbar.cache.errors import FormatError, InputError
from lumbar.train.run.checkpoint import LAST, ModelBundle, load_checkpoint
from lumbar.train.run.config import RunConfig
from lumbar.train.run.folder import CONFIG, USE_BEST, find_remains
from lumbar.train.trainer.phases import rate_factor
from lumbar.train.trainer.trainer import Trainer


def with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    """Return a configuration with other ``optim.epochs``."""
    optim = config.optim.model_copy(update={"epochs": epochs})
    return config.model_copy(update={"optim": optim})


def check_epochs(
    saved: RunConfig, config: RunConfig, *, done: int, best: int, where: object
) -> None:
    """Raise `InputError` where a run of which ``done`` epochs are trained cannot have these.

    The second phase trains the head alone, so the first cannot get more epochs once the second has
    begun. A run whose ``best`` epoch lies ``optim.patience`` epochs back is over.
    """
    before, epochs = saved.optim.epochs, config.optim.epochs
    if epochs == before:
        return
    patience = config.optim.patience
    if config.finish.epochs and done > before:
        expected = f"{before}, for the second phase has begun"
    elif epochs < done:
        expected = f"{done} or more, which are trained already"
    elif patience and done - 1 - best >= patience:
        expected = f"{before}: optim.patience = {patience} has ended the run after epoch {done}"
    else:
        return
    raise InputError(
        what="other epochs than the run can have",
        where=f"optim.epochs of {where}",
        got=epochs,
        expected=expected,
        cure="start another run",
    )


def go_to_new_rate(saved: RunConfig, trainer: Trainer, *, steps: int) -> str:
    """Put a resumed run on the schedule of its new epochs; return what that does, in one line.

    The weights and the optimiser's averages stay. Where the epochs are as they were nothing changes
    and the text is empty.
    """
    config = trainer.config
    if config.optim.epochs == saved.optim.epochs:
        return ""
    at = trainer.schedule.last_epoch
    for group, base in zip(trainer.optimizer.param_groups, trainer.schedule.base_lrs, strict=True):
        group["lr"] = base * rate_factor(config, at, steps=steps)
    trainer.schedule._last_lr = [group["lr"] for group in trainer.optimizer.param_groups]
    before, after = (rate_factor(c, at, steps=steps) * c.optim.lr for c in (saved, config))
    return (
        f"{config.optim.epochs} epochs in the place of {saved.optim.epochs}: the "
        f"{config.optim.schedule} schedule is that of a run of {config.optim.epochs} from here on, "
        f"so the rate of the next step is {after:.3g} and not {before:.3g}; the result is not "
        f"that of a run that was started with {config.optim.epochs}"
    )


def restore(run: Path, bundle: ModelBundle, trainer: Trainer) -> RunConfig:
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
        left = find_remains(run) or "nothing that is trained"
        raise FormatError(
            what="the last checkpoint cannot be read",
            where=run / LAST,
            got=f"{error}; still there: {left}",
            expected="the checkpoint that the last epoch left",
            cure=USE_BEST,
        ) from error
    if with_epochs(saved.config, bundle.config.optim.epochs) != bundle.config or state is None:
        raise InputError(
            what="the checkpoint is of another configuration",
            where=run / LAST,
            got=f"another than {run / CONFIG} holds",
            expected="the configuration that the run was started with",
            cure=f"put {CONFIG} back as it was, or start another run",
        )
    # The prior tells the training studies: with others there would be another.
    if saved.preprocess != bundle.preprocess or not np.array_equal(saved.prior, bundle.prior):
        raise InputError(
            what="the checkpoint is of another cache",
            where=run / LAST,
            got="another preprocessing, or other studies to train on",
            expected="the cache that the run was started on",
            cure="resume on that cache or start another run",
        )
    check_epochs(
        saved.config,
        bundle.config,
        done=state["next_epoch"],
        best=state["best_epoch"],
        where=run,
    )
    bundle.model.load_state_dict(saved.model.state_dict())
    trainer.restore(state)
    return saved.config
