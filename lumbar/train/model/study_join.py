"""Join the series of a study: cell by cell, or as one long sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.cache.names import CONDITIONS, LEVELS, N_CELLS, SHOWN_CONDITIONS, SeriesType
from lumbar.train.model.anatomy import ANATOMY
from lumbar.train.model.attention import masked_softmax
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.heads import make_slice_pool
from lumbar.train.model.sequence import SliceSequence, run_sequence

SHOWN_SCORE = 2.0
"""Initial score of a series for a condition that it shows: 7 times the weight of the others."""


@dataclass(frozen=True, slots=True)
class TypeSlices:
    """The series of one type in a batch of studies.

    ``rows`` are their places among the batch's B x S series; ``lengths`` are None where no size may
    depend on the data.
    """

    rows: Int64[torch.Tensor, " n"]
    vectors: Float[torch.Tensor, "n d r c"]
    present: Bool[torch.Tensor, "n d"]
    position: Float[torch.Tensor, "n d"]
    lengths: Int64[torch.Tensor, " n"] | None


class CellJoin(nn.Module):
    """Pools each cell at its own place in every series, then attends over the series.

    Attention starts at the series types that show a condition. An embedding tells the head the
    series type. In checkpoints ``look`` is the pool over slices, ``kind`` that embedding.
    """

    def __init__(self, config: ModelConfig, types: tuple[SeriesType, ...], inputs: int) -> None:
        super().__init__()
        sequences = {str(t): SliceSequence(inputs, config) for t in types}
        self.sequence = nn.ModuleDict(sequences)
        self.channels = sequences[types[0]].channels
        self.look = nn.ModuleDict(
            {t: make_slice_pool(config, self.channels, ANATOMY[t]) for t in types}
        )
        self.kind = nn.ParameterDict({t: torch.zeros(self.channels) for t in types})
        self.score = nn.ParameterDict({t: _shown_scores(t) for t in types})
        self.query = nn.Parameter(torch.zeros(len(CONDITIONS), self.channels))

    def weights_of(self, series_type: str) -> list[nn.Parameter]:
        """Return the weights that only series of this type train."""
        parts = (self.sequence[series_type], self.look[series_type])
        own = [weight for part in parts for weight in part.parameters()]
        return [*own, self.kind[series_type], self.score[series_type]]

    def forward(
        self,
        of_type: Mapping[str, TypeSlices],
        present: Bool[torch.Tensor, "b s d"],
        lengths: Int64[torch.Tensor, "b s"] | None,
    ) -> Float[torch.Tensor, "b 25 c"]:
        """Return the vector of each cell, 0 for a study without any series."""
        there = present.any(dim=2)
        cells = self.query.new_zeros((there.numel(), N_CELLS, self.channels))
        scores = self.query.new_zeros((there.numel(), N_CELLS))
        for series_type, of in of_type.items():
            context = run_sequence(self.sequence[series_type], of.vectors, of.present, of.lengths)
            pooled = self.look[series_type](context, of.position, of.present).float()
            conditions = pooled.view(-1, len(CONDITIONS), len(LEVELS), self.channels)
            fits = (conditions * self.query[:, None]).sum(dim=3)
            score = (fits + self.score[series_type][:, None]).flatten(1)
            cells = cells.index_copy(0, of.rows, pooled + self.kind[series_type])
            scores = scores.index_copy(0, of.rows, score)
        weights = masked_softmax(scores.view(*there.shape, N_CELLS), there[..., None], dim=1)
        return torch.einsum("bsk,bskc->bkc", weights, cells.view(*there.shape, *cells.shape[1:]))


class SequenceJoin(nn.Module):
    """Concatenates the slices of all series, plus an embedding of their type, as in 2022.

    One sequence model runs over all present slices. In checkpoints ``look`` is the pool over
    slices, ``kind`` the embedding.
    """

    def __init__(self, config: ModelConfig, types: tuple[SeriesType, ...], inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.kind = nn.ParameterDict({t: torch.zeros(self.inputs) for t in types})
        self.sequence = SliceSequence(self.inputs, config)
        self.channels = self.sequence.channels
        self.look = make_slice_pool(config, self.channels, ANATOMY[types[0]])

    def weights_of(self, series_type: str) -> list[nn.Parameter]:
        """Return the weights that only series of this type train."""
        return [self.kind[series_type]]

    def forward(
        self,
        of_type: Mapping[str, TypeSlices],
        present: Bool[torch.Tensor, "b s d"],
        lengths: Int64[torch.Tensor, "b s"] | None,
    ) -> Float[torch.Tensor, "b q c"]:
        """Return the vectors that the head pools, 0 for a study without any series."""
        b, s, depth = present.shape
        slices = present.new_zeros((b * s, depth, self.inputs), dtype=torch.float32)
        for series_type, of in of_type.items():
            typed = of.vectors[:, :, 0].float() + self.kind[series_type]
            slices = slices.index_copy(0, of.rows, typed)
        slices, there = _compacted(slices.view(b, s * depth, -1), present.flatten(1))
        counted = None if lengths is None else lengths.sum(dim=1)
        context = run_sequence(self.sequence, slices[:, :, None], there, counted)
        pooled: torch.Tensor = self.look(context, there.float(), there)
        return pooled


def _compacted(
    slices: Float[torch.Tensor, "b d c"], present: Bool[torch.Tensor, "b d"]
) -> tuple[Float[torch.Tensor, "b d c"], Bool[torch.Tensor, "b d"]]:
    """Move the present slices to the front, in their order."""
    count = present.sum(dim=1, keepdim=True)
    place = torch.where(present, present.cumsum(dim=1), count + (~present).cumsum(dim=1)) - 1
    moved = torch.zeros_like(slices).scatter(1, place[..., None].expand_as(slices), slices)
    return moved, torch.arange(present.shape[1], device=present.device) < count


def _shown_scores(series_type: SeriesType) -> torch.Tensor:
    scores = torch.zeros(len(CONDITIONS))
    scores[list(SHOWN_CONDITIONS[series_type])] = SHOWN_SCORE
    return scores
