"""The metric's fourth part as a loss: is the canal severe at any level."""

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
    """Return a sample's loss, were its worst known level normal/mild, moderate or severe.

    ``-ln q`` if it is severe, else ``-ln (1 - q)``, q being the largest probability of a severe
    canal among the known levels, as in `lumbar.train.evaluation.metric`. It is taken of the
    log-odds, where the same level is the largest and nothing is rounded to 0 or 1. With a
    temperature T the maximum is the smooth ``T ln sum exp(x / T)``, at least the largest, so that
    every level learns.
    """
    known = target.sum(dim=2) > 0
    odds = log_probabilities[..., SEVERE] - log_of_others(log_probabilities)[..., SEVERE]
    odds = odds.masked_fill(~known, -torch.inf)
    # Of a sample without a known level any finite number will do.
    odds = odds.where(known.any(dim=1, keepdim=True), 0.0)
    if temperature:
        largest = temperature * (odds / temperature).logsumexp(dim=1)
    else:
        largest = odds.amax(dim=1)
    no, yes = functional.softplus(largest), functional.softplus(-largest)
    return torch.stack([no, no, yes], dim=1)


def worst_level(target: Float[torch.Tensor, "b 5 3"]) -> Float[torch.Tensor, "b 3"]:
    """Return which severity a sample's worst known level has, one-hot; 0, 0, 0 if none is known.

    Of mixed samples it is shared: "at least this bad" holds in the largest share among the levels.
    """
    at_least = target.flip(2).cumsum(dim=2).flip(2).amax(dim=1)
    return at_least - functional.pad(at_least[:, 1:], (0, 1))
