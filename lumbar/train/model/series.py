"""The network of one series or of one disc: slices in, 25 x 3 logits out."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.cache.names import LEVELS, SeriesType
from lumbar.train.model.anatomy import ANATOMY, DISC_ANATOMY
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.encoder import SliceEncoder
from lumbar.train.model.heads import GradeHead, make_head, make_slice_pool
from lumbar.train.model.sequence import (
    SliceSequence,
    make_plane_pool,
    run_sequence,
    slice_vectors,
)


class SeriesClassifier(nn.Module):
    """A CNN on every slice, a sequence model over the slices, a head of 25 x 3 logits.

    ``size`` and ``field_mm`` are height and width of the crops, in pixels and in millimetres. With
    ``disc`` a sample is a crop around one disc. All discs share all weights; an embedding tells the
    head the disc's level, and the logits are the same at all levels: only its own level's count.
    """

    def __init__(
        self,
        config: ModelConfig,
        series_type: SeriesType,
        *,
        size: tuple[int, int],
        field_mm: tuple[float, float],
        disc: bool = False,
    ) -> None:
        super().__init__()
        anatomy = (DISC_ANATOMY if disc else ANATOMY)[series_type]
        self.encoder = SliceEncoder(config, size=size)
        self.pool = make_plane_pool(config, self.encoder.channels, anatomy, field_mm=field_mm)
        self.sequence = SliceSequence(self.pool.channels, config)
        channels = self.sequence.channels
        # Checkpoints have the pool over the slices under the name "look".
        self.look = make_slice_pool(config, channels, anatomy)
        self.level: nn.Embedding | None = None
        if disc:
            self.level = nn.Embedding(len(LEVELS), channels)
            nn.init.zeros_(self.level.weight)
        self.head = make_head(config, channels, disc=disc)

    @property
    def encoders(self) -> list[SliceEncoder]:
        """The slice encoder, as a list of one."""
        return [self.encoder]

    @property
    def parts(self) -> list[list[nn.Module]]:
        """What follows the encoder, from input to output."""
        head = [self.head] if self.level is None else [self.level, self.head]
        return [[self.pool], [self.sequence], [self.look], head]

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

        All networks take the same arguments: ``series_type`` is not used here, and ``level`` only
        (and then always) with ``disc``.
        """
        vectors = slice_vectors(self.encoder, self.pool, image, present, lengths)
        context = run_sequence(self.sequence, vectors, present, lengths)
        if self.level is None:
            logits: torch.Tensor = self.head(self.look(context, position, present))
            return logits.flatten(1, 2).float()
        assert level is not None
        pooled = self.look(context, _from_middle(position, present), present)
        pooled = pooled + self.level(level)[:, None]
        logits = self.head(pooled[:, :, None] if isinstance(self.head, GradeHead) else pooled)
        return logits.expand(-1, -1, len(LEVELS), -1).flatten(1, 2).float()


def _from_middle(
    position: Float[torch.Tensor, "b d"], present: Bool[torch.Tensor, "b d"]
) -> Float[torch.Tensor, "b d"]:
    """Return positions relative to the mean of the present slices, which lie around the disc."""
    position = position.masked_fill(~present, 0.0)
    count = present.sum(dim=1, keepdim=True).clamp(min=1)
    return position - position.sum(dim=1, keepdim=True) / count
