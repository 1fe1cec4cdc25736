"""The network of one series or of one disc: slices in, 25 x 3 logits out."""

from __future__ import annotations

from typing import assert_never

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.cache.errors import InputError
from lumbar.cache.names import LEVELS, SeriesType
from lumbar.train.model.anatomy import ANATOMY, DISC_ANATOMY
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.encoder import SliceEncoder
from lumbar.train.model.heads import GradeHead, Rsna2022Head, make_head, make_slice_pool
from lumbar.train.model.sequence import SliceSequence, make_plane_pool, run_sequence, slice_vectors


class SeriesClassifier(nn.Module):
    """CNN on every slice, a sequence over the slices, a head of 25 x 3 logits.

    ``size`` and ``field_mm`` are height and width of the crops, in pixels and in millimetres.
    """

    def __init__(
        self,
        config: ModelConfig,
        series_type: SeriesType,
        *,
        size: tuple[int, int],
        field_mm: tuple[float, float],
    ) -> None:
        super().__init__()
        anatomy = ANATOMY[series_type]
        self.encoder = SliceEncoder(config, size=size)
        self.pool = make_plane_pool(config, self.encoder.channels, anatomy, field_mm=field_mm)
        self.sequence = SliceSequence(self.pool.channels, config)
        self.look = make_slice_pool(config, self.sequence.channels, anatomy)
        self.head = make_head(config, self.sequence.channels)

    @property
    def encoders(self) -> list[SliceEncoder]:
        """The encoders of the slices."""
        return [self.encoder]

    @property
    def parts(self) -> list[list[nn.Module]]:
        """What follows the encoder, from input to output."""
        return [[self.pool], [self.sequence], [self.look], [self.head]]

    def forward(
        self,
        image: Float[torch.Tensor, "b d 1 h w"],
        present: Bool[torch.Tensor, "b d"],
        position: Float[torch.Tensor, "b d"],
        lengths: Int64[torch.Tensor, " b"] | None = None,
        series_type: Int64[torch.Tensor, " b"] | None = None,
        level: Int64[torch.Tensor, " b"] | None = None,
    ) -> Float[torch.Tensor, "b 25 3"]:
        """Return float32 logits; ``lengths`` lies on the host.

        All networks take the same: ``series_type`` and ``level`` are not used here.
        """
        vectors = slice_vectors(self.encoder, self.pool, image, present, lengths)
        context = run_sequence(self.sequence, vectors, present, lengths)
        logits: torch.Tensor = self.head(self.look(context, position, present))
        return logits.flatten(1, 2).float()


class DiscClassifier(nn.Module):
    """As `lumbar.train.model.series.SeriesClassifier`, around the middle of a disc.

    All discs share all weights; what is graded is told the disc's level by an embedding.
    """

    def __init__(
        self,
        config: ModelConfig,
        series_type: SeriesType,
        *,
        size: tuple[int, int],
        field_mm: tuple[float, float],
    ) -> None:
        super().__init__()
        anatomy = DISC_ANATOMY[series_type]
        self.encoder = SliceEncoder(config, size=size)
        self.pool = make_plane_pool(config, self.encoder.channels, anatomy, field_mm=field_mm)
        self.sequence = SliceSequence(self.pool.channels, config)
        channels = self.sequence.channels
        self.look = make_slice_pool(config, channels, anatomy)
        self.level = nn.Embedding(len(LEVELS), channels)
        nn.init.zeros_(self.level.weight)
        self.head = _make_head(config, channels)

    @property
    def encoders(self) -> list[SliceEncoder]:
        """The encoders of the slices."""
        return [self.encoder]

    @property
    def parts(self) -> list[list[nn.Module]]:
        """What follows the encoder, from input to output."""
        return [[self.pool], [self.sequence], [self.look], [self.level, self.head]]

    def forward(
        self,
        image: Float[torch.Tensor, "b d 1 h w"],
        present: Bool[torch.Tensor, "b d"],
        position: Float[torch.Tensor, "b d"],
        lengths: Int64[torch.Tensor, " b"] | None = None,
        series_type: Int64[torch.Tensor, " b"] | None = None,
        level: Int64[torch.Tensor, " b"] | None = None,
    ) -> Float[torch.Tensor, "b 25 3"]:
        """Return float32 logits; a disc's are the same at all levels, and mean its own alone.

        ``lengths`` lies on the host, ``level`` is needed; ``series_type`` is not used.
        """
        assert level is not None
        vectors = slice_vectors(self.encoder, self.pool, image, present, lengths)
        context = run_sequence(self.sequence, vectors, present, lengths)
        looked = self.look(context, _from_middle(position, present), present)
        looked = looked + self.level(level)[:, None]
        logits: torch.Tensor = self.head(
            looked[:, :, None] if isinstance(self.head, GradeHead) else looked
        )
        return logits.expand(-1, -1, len(LEVELS), -1).flatten(1, 2).float()


def _from_middle(
    position: Float[torch.Tensor, "b d"], present: Bool[torch.Tensor, "b d"]
) -> Float[torch.Tensor, "b d"]:
    """Return positions from the middle of the slices that are there, which lie around the disc."""
    position = position.masked_fill(~present, 0.0)
    count = present.sum(dim=1, keepdim=True).clamp(min=1)
    return position - position.sum(dim=1, keepdim=True) / count


def _make_head(config: ModelConfig, channels: int) -> GradeHead | Rsna2022Head:
    match config.head:
        case "cells":
            return GradeHead(channels, dropout=config.dropout)
        case "rsna2022":
            return Rsna2022Head(channels, norm=config.norm, levels=1)
        case "levels":
            raise InputError(
                what="a head for each level, where each sample is of one level",
                where="model.head",
                got="levels, with discs",
                expected="cells or rsna2022",
                cure="set model.head, or train on whole series",
            )
        case _:
            assert_never(config.head)
