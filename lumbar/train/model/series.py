"""One series in, 25 x 3 logits out."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.cache.names import SeriesType
from lumbar.train.model.anatomy import ANATOMY
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.encoder import SliceEncoder
from lumbar.train.model.heads import make_head, make_look
from lumbar.train.model.reading import in_sequence, make_pool, slice_vectors
from lumbar.train.model.sequence import SliceSequence


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
        self.pool = make_pool(config, self.encoder.channels, anatomy, field_mm=field_mm)
        self.sequence = SliceSequence(self.pool.channels, config)
        self.look = make_look(config, self.sequence.channels, anatomy)
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
        context = in_sequence(self.sequence, vectors, present, lengths)
        logits: torch.Tensor = self.head(self.look(context, position, present))
        return logits.flatten(1, 2).float()
