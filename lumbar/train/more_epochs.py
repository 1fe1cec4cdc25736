"""More epochs on a run, or fewer: what a resume may change, and what it does to the schedule."""

from __future__ import annotations

from lumbar.cache.errors import InputError
from lumbar.train.config import RunConfig
from lumbar.train.phases import rate_factor
from lumbar.train.training import Training


def with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    """Return a configuration with other ``optim.epochs``."""
    optim = config.optim.model_copy(update={"epochs": epochs})
    return config.model_copy(update={"optim": optim})


def check_epochs(
    saved: RunConfig, config: RunConfig, *, done: int, best: int, where: object
) -> None:
    """Raise `InputError` where a run of which ``done`` epochs are trained cannot have these.

    The second phase trains the head alone: once it has begun the first cannot go on. A run whose
    ``best`` epoch lies ``optim.patience`` back is over, however many epochs it may have.
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


def go_to_new_rate(saved: RunConfig, training: Training, *, steps: int) -> str:
    """Put a resumed run on the schedule of its new epochs; return what that does, in one line.

    The weights and the optimiser's averages stay. Where the epochs are as they were nothing changes
    and the text is empty.
    """
    config = training.config
    if config.optim.epochs == saved.optim.epochs:
        return ""
    at = training.schedule.last_epoch
    for group, base in zip(
        training.optimizer.param_groups, training.schedule.base_lrs, strict=True
    ):
        group["lr"] = base * rate_factor(config, at, steps=steps)
    training.schedule._last_lr = [group["lr"] for group in training.optimizer.param_groups]
    before, after = (rate_factor(c, at, steps=steps) * c.optim.lr for c in (saved, config))
    return (
        f"{config.optim.epochs} epochs in the place of {saved.optim.epochs}: the "
        f"{config.optim.schedule} schedule is that of a run of {config.optim.epochs} from here on, "
        f"so the rate of the next step is {after:.3g} and not {before:.3g}; the result is not "
        f"that of a run that was started with {config.optim.epochs}"
    )
