"""The metric's fourth part as a loss: whether the spinal canal is severe at any level."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch.nn import functional

from lumbar.cache.names import SEVERE
from lumbar.train.loss.kinds import log_of_others


def any_severe_losses(
    log_probabilities: Float[torch.Tensor, "b 5 3"],
    target: Float[torch.Tensor, "b 5 3"],
    *,
    temperature: float,
) -> Float[torch.Tensor, "b 3"]:
    """Return each sample's loss for a worst known level of normal/mild, moderate or severe.

    ``-ln q`` for severe, else ``-ln (1 - q)``; q is the largest probability of a severe canal among
    the known levels, as in `lumbar.train.evaluation.metric`. The maximum is taken over the
    log-odds, which are not rounded to 0 or 1. With a temperature T it is the smooth
    ``T ln sum exp(x / T)``, so that every level has a gradient.
    """
    known = target.sum(dim=2) > 0
    odds = log_probabilities[..., SEVERE] - log_of_others(log_probabilities)[..., SEVERE]
    odds = odds.masked_fill(~known, -torch.inf)
    # Without a known level any finite number will do: its weight is 0.
    odds = odds.where(known.any(dim=1, keepdim=True), 0.0)
    if temperature:
        largest = temperature * (odds / temperature).logsumexp(dim=1)
    else:
        largest = odds.amax(dim=1)
    no, yes = functional.softplus(largest), functional.softplus(-largest)
    return torch.stack([no, no, yes], dim=1)


def worst_level(target: Float[torch.Tensor, "b 5 3"]) -> Float[torch.Tensor, "b 3"]:
    """Return the severity of each sample's worst known level, one-hot; 0, 0, 0 if none is known.

    For mixed samples, "at least this severe" has its largest share among the levels.
    """
    at_least = target.flip(2).cumsum(dim=2).flip(2).amax(dim=1)
    return at_least - functional.pad(at_least[:, 1:], (0, 1))
