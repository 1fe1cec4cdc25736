"""The loss of a batch of 25 cells: its terms and their weights; and the probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import torch
from jaxtyping import Bool, Float
from torch import nn

from lumbar.cache.names import CONDITIONS, GROUP_CELLS, LEVELS, N_CELLS, SeriesType
from lumbar.train.device_tensors import as_slice
from lumbar.train.loss.any_severe import any_severe_losses, worst_level
from lumbar.train.loss.config import LossConfig, trained_cells
from lumbar.train.loss.kinds import loss_kind

SPINAL = as_slice(GROUP_CELLS["spinal"])
"""The cells of the spinal canal."""


class CellLoss(nn.Module):
    """The weighted mean loss of the known cells of a batch; 0 where none is known.

    It has ``t`` terms: all cells together, or one per trained part of the metric; and the
    any-severe term if it has a weight. Each term is a weighted mean, and the loss is the weighted
    mean of the terms with a known cell. `sums` and `weights` of parts of a batch, or of several
    processes, add up; `total` of these sums is the loss of the whole batch.

    Targets are 0, 0, 0 where a cell is unknown. A target that mixup shares between severities has
    the loss of each in its share.
    """

    severity_weights: Float[torch.Tensor, "3"]
    trained: Bool[torch.Tensor, "25"]
    term_cells: Bool[torch.Tensor, "p 25"]
    term_weights: Float[torch.Tensor, " t"]

    def __init__(self, config: LossConfig, types: Iterable[SeriesType]) -> None:
        super().__init__()
        self.config = config
        self.kind = loss_kind(config)
        trained = trained_cells(config, types)
        cells = _term_cells(config, trained)
        term_weights = [1.0] * len(cells) + [config.any_severe] * (config.any_severe > 0)
        for name, table in (
            ("severity_weights", torch.tensor(config.weights)),
            ("trained", trained),
            ("term_cells", cells),
            ("term_weights", torch.tensor(term_weights)),
        ):
            self.register_buffer(name, table, persistent=False)

    def forward(
        self, logits: Float[torch.Tensor, "b 25 3"], target: Float[torch.Tensor, "b 25 3"]
    ) -> Float[torch.Tensor, ""]:
        """Return the loss of a batch."""
        return self.total(self.sums(logits, target), self.weights(target))

    def sums(
        self, logits: Float[torch.Tensor, "b 25 3"], target: Float[torch.Tensor, "b 25 3"]
    ) -> Float[torch.Tensor, " t"]:
        """Return the weighted sum of each term over a batch, or over a part of one."""
        known = self._known(target)
        # Logits of unknown cells must not count, not even NaN.
        logits = _at_least_float32(logits).masked_fill(~known[..., None], 0.0)
        losses = self._smoothed(self.kind.losses(logits, known))
        terms = self._of_terms((self._cell_weights(target) * losses).sum(dim=2))
        if not self.config.any_severe:
            return terms
        any_severe = self._worst_weights(target) * any_severe_losses(
            self.kind.log_probabilities(logits)[:, SPINAL],
            target[:, SPINAL],
            temperature=self.config.any_severe_temperature,
        )
        return torch.cat([terms, any_severe.sum().reshape(1)])

    def weights(self, target: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, " t"]:
        """Return the divisor of each term's sum."""
        terms = self._of_terms(self._cell_weights(target).sum(dim=2))
        if not self.config.any_severe:
            return terms
        return torch.cat([terms, self._worst_weights(target).sum().reshape(1)])

    def total(
        self, sums: Float[torch.Tensor, " t"], weights: Float[torch.Tensor, " t"]
    ) -> Float[torch.Tensor, ""]:
        """Return the loss: the weighted mean of the terms with a weight, 0 if there are none."""
        exists = weights > 0
        share = self.term_weights * exists
        means = sums / weights.where(exists, 1.0)
        return (share * means).sum() / share.sum().where(exists.any(), 1.0)

    def probabilities(self, logits: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25 3"]:
        """Return probabilities that sum to one over the severities of a cell."""
        return self.kind.log_probabilities(_at_least_float32(logits)).exp()

    def _known(self, target: Float[torch.Tensor, "b 25 3"]) -> Bool[torch.Tensor, "b 25"]:
        """Return which cells are known and trained."""
        return (target.sum(dim=2) > 0) & self.trained

    def _cell_weights(self, target: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25 3"]:
        """Return the weight of each severity of each cell, by its share in the target."""
        weights = target * self.severity_weights * self.trained[:, None]
        if self.config.kind != "soft_disc":
            return weights
        of_disc = self._known(target).reshape(-1, len(CONDITIONS), len(LEVELS)).sum(dim=1)
        shared: torch.Tensor = weights / of_disc.clamp(min=1).repeat(1, len(CONDITIONS))[..., None]
        return shared

    def _worst_weights(self, target: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 3"]:
        """Return the weight of each severity of each sample's worst spinal level."""
        return worst_level(target[:, SPINAL]) * self.severity_weights

    def _of_terms(self, of_cells: Float[torch.Tensor, "b 25"]) -> Float[torch.Tensor, " p"]:
        """Return the sums over the cells of each term."""
        # No matrix product: autocast would round it.
        return (of_cells.sum(dim=0) * self.term_cells).sum(dim=1)

    def _smoothed(self, losses: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25 3"]:
        """Return the losses with a share of every target spread evenly over the severities.

        The weight of a cell stays that of its true severity. Source: Szegedy et al., "Rethinking
        the Inception Architecture for Computer Vision", 2016, section 7.
        """
        share = self.config.label_smoothing
        if not share:
            return losses
        return (1 - share) * losses + share * losses.mean(dim=2, keepdim=True)


def _term_cells(
    config: LossConfig, trained: Bool[torch.Tensor, "25"]
) -> Bool[torch.Tensor, "p 25"]:
    """Return the cells of each term: one term of all cells, or one per trained part."""
    match config.average:
        case "cells":
            return trained[None]
        case "parts":
            every, groups = torch.arange(N_CELLS), GROUP_CELLS.values()
            parts = torch.stack([torch.isin(every, torch.tensor(part)) for part in groups])
            parts &= trained
            return parts[parts.any(dim=1)]
        case _:
            assert_never(config.average)


def _at_least_float32(logits: Float[torch.Tensor, "b 25 3"]) -> Float[torch.Tensor, "b 25 3"]:
    return logits if logits.dtype == torch.float64 else logits.float()
