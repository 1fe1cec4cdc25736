"""The kinds of loss: the loss of each severity of a cell, and the probabilities of the logits.

Every kind has two functions. One returns the loss for each of the three severities as the true one;
the loss of a target shared between severities (mixup, label smoothing) is their weighted sum. The
other returns the logarithms of the probabilities, which sum to one over a cell. Unknown cells have
finite logits and weight 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, assert_never

import torch
from jaxtyping import Bool, Float
from torch.nn import functional

from lumbar.cache.names import CONDITIONS, LEVELS, N_SEVERITIES
from lumbar.train.loss.config import LossConfig

Cells = Float[torch.Tensor, "b 25 3"]
Known = Bool[torch.Tensor, "b 25"]

SOFTMAX_KINDS = ("cross_entropy", "focal", "soft_disc")
"""The kinds whose probabilities are the softmax of a cell's logits."""


class LossKind(NamedTuple):
    """A kind of loss: the loss of each severity, and the log-probabilities of logits."""

    losses: Callable[[Cells, Known], Cells]
    log_probabilities: Callable[[Cells], Cells]


def loss_kind(config: LossConfig) -> LossKind:
    """Return the configured kind of loss."""
    match config.kind:
        case "cross_entropy":
            return LossKind(cross_entropy, softmax)
        case "focal":
            return LossKind(partial(focal, gamma=config.focal_gamma), softmax)
        case "ordinal":
            return LossKind(ordinal, cumulative)
        case "bce":
            return LossKind(binary, shares_of_sigmoids)
        case "soft_disc":
            return LossKind(soft_disc, softmax)
        case _:
            assert_never(config.kind)


def softmax(logits: Cells) -> Cells:
    """Return the log-probabilities of a softmax over the severities."""
    return logits.log_softmax(dim=2)


def cross_entropy(logits: Cells, known: Known) -> Cells:
    """Return the cross entropy ``-ln p``, the metric's own loss of a cell."""
    del known  # each cell by itself
    return -logits.log_softmax(dim=2)


def focal(logits: Cells, known: Known, *, gamma: float) -> Cells:
    """Weigh confident cells less: ``-(1 - p)^gamma ln p``; gamma 0 is cross entropy.

    Its optimal probabilities are less confident than the true ones. Source: Lin et al., "Focal Loss
    for Dense Object Detection", 2017, equation 4, with a softmax.
    """
    del known
    log_p = logits.log_softmax(dim=2)
    if gamma == 0:
        return -log_p
    # ln (1 - p) from the sum of the others: near p = 1 the difference loses all digits. The
    # logarithm gives its power a gradient at 0 too.
    return -(gamma * log_of_others(log_p)).exp() * log_p


def log_of_others(log_p: Float[torch.Tensor, "*n 3"]) -> Float[torch.Tensor, "*n 3"]:
    """Return ``ln (1 - p)`` of each severity, by the sum of the other two."""
    others = [
        torch.logaddexp(log_p[..., (s + 1) % 3], log_p[..., (s + 2) % 3])
        for s in range(N_SEVERITIES)
    ]
    return torch.stack(others, dim=-1)


def cumulative_logits(logits: Cells) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of "worse than normal/mild" and of "severe"; the second is never greater.

    The first is ``x1 - x0``, the second is smaller by ``softplus(x1 - x2)``. As with a softmax, a
    greater logit of a severity raises its probability.
    """
    normal, moderate, severe = logits.unbind(dim=-1)
    worse = moderate - normal
    return worse, worse - functional.softplus(moderate - severe)


def ordinal(logits: Cells, known: Known) -> Cells:
    """Add the binary cross entropies of "worse than normal/mild?" and "severe?".

    A severe cell that is predicted as normal is wrong twice. Sources: Cao, Mirjalili and Raschka,
    "Rank consistent ordinal regression for neural networks", 2020, equation 4 (CORAL); the ordered
    thresholds are those of McCullagh, "Regression Models for Ordinal Data", 1980.
    """
    del known
    worse, severe = cumulative_logits(logits)
    no_worse, no_severe = functional.softplus(worse), functional.softplus(severe)
    yes_worse, yes_severe = functional.softplus(-worse), functional.softplus(-severe)
    return torch.stack(
        [no_worse + no_severe, yes_worse + no_severe, yes_worse + yes_severe], dim=-1
    )


def cumulative(logits: Cells) -> Cells:
    """Return the log-probabilities between the thresholds of `cumulative_logits`.

    ``sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a))`` avoids the difference of
    nearly equal numbers; with ``a - b = softplus(x)`` the last factor is ``sigmoid(x)``.
    """
    worse, severe = cumulative_logits(logits)
    between = functional.logsigmoid(logits[..., 1] - logits[..., 2])
    moderate = functional.logsigmoid(worse) + functional.logsigmoid(-severe) + between
    return torch.stack(
        [functional.logsigmoid(-worse), moderate, functional.logsigmoid(severe)], dim=-1
    )


def binary(logits: Cells, known: Known) -> Cells:
    """Add the binary cross entropies of the three severities against the one-hot target.

    Each "no" costs ``softplus(x)``, the one "yes" ``softplus(x) - x``.
    """
    del known
    return functional.softplus(logits).sum(dim=2, keepdim=True) - logits


def shares_of_sigmoids(logits: Cells) -> Cells:
    """Return the logarithms of each sigmoid's share of their sum, in a stable way."""
    return functional.logsigmoid(logits).log_softmax(dim=2)


def soft_disc(logits: Cells, known: Known) -> Cells:
    """Return ``-ln`` of one softmax over all severities of all known cells of a disc.

    `CellLoss` divides each cell's target by the number of known cells of its disc, so that the
    targets of a disc sum to one. With one known cell per disc this is cross entropy. Probabilities
    are those within a cell, ``p(severity | cell)``: a softmax over its three logits.
    """
    of_disc = logits.reshape(-1, len(CONDITIONS), len(LEVELS), N_SEVERITIES)
    is_choice = known.reshape(-1, len(CONDITIONS), len(LEVELS), 1)
    choices = of_disc.masked_fill(~is_choice, -torch.inf)
    # Without a known cell any finite number will do: its weight is 0.
    choices = choices.where(is_choice.any(dim=1, keepdim=True), 0.0)
    return (choices.logsumexp(dim=(1, 3), keepdim=True) - of_disc).flatten(1, 2)
