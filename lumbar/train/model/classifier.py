"""One series in, 25 x 3 logits out: the parts put together."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from lumbar.cache.names import SeriesType
from lumbar.train.model.anatomy import ANATOMY
from lumbar.train.model.attention import RegionAttention, WholeSlice
from lumbar.train.model.encoder import SliceEncoder
from lumbar.train.model.heads import CellHead, NormName, Rsna2022Head
from lumbar.train.model.sequence import SliceSequence


class ModelConfig(BaseModel):
    """The network.

    ``head`` is ``cells``, which looks for each of the 25 cells at its own place, or ``rsna2022``,
    the head of the 2022 competition over the whole series; ``norm`` is that head's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: str = "resnet18"
    stride: Literal[8, 16, 32] = 16
    pretrained: bool = False
    lstm_hidden: int = Field(256, ge=1)
    lstm_layers: int = Field(1, ge=1)
    bidirectional: bool = True
    head: Literal["cells", "rsna2022"] = "cells"
    norm: NormName = "none"
    dropout: float = Field(0.2, ge=0, lt=1)


class SeriesClassifier(nn.Module):
    """CNN on every slice, LSTM over the slices, a head of 25 x 3 logits."""

    def __init__(
        self, config: ModelConfig, series_type: SeriesType, *, field_mm: tuple[float, float]
    ) -> None:
        super().__init__()
        anatomy = ANATOMY[series_type]
        self.encoder = SliceEncoder(
            config.backbone, stride=config.stride, pretrained=config.pretrained
        )
        channels = self.encoder.channels
        self.pool: RegionAttention | WholeSlice = (
            RegionAttention(channels, anatomy.regions, field_mm=field_mm)
            if config.head == "cells"
            else WholeSlice(channels)
        )
        self.sequence = SliceSequence(
            self.pool.channels,
            hidden=config.lstm_hidden,
            layers=config.lstm_layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
        )
        self.head: CellHead | Rsna2022Head = (
            CellHead(self.sequence.channels, anatomy, hidden=128, dropout=config.dropout)
            if config.head == "cells"
            else Rsna2022Head(self.sequence.channels, norm=config.norm)
        )

    def forward(
        self,
        image: Float[torch.Tensor, "b d 1 h w"],
        present: Bool[torch.Tensor, "b d"],
        position: Float[torch.Tensor, "b d"],
        lengths: Int64[torch.Tensor, " b"],
        series_type: Int64[torch.Tensor, " b"] | None = None,
        level: Int64[torch.Tensor, " b"] | None = None,
    ) -> Float[torch.Tensor, "b 25 3"]:
        """Return float32 logits; ``lengths`` lies on the host.

        All networks take the same: ``series_type`` and ``level`` are not used here.
        """
        vectors = self._encode(image, lengths)
        b, d, r, c = vectors.shape
        sequences = vectors.permute(0, 2, 1, 3).reshape(b * r, d, c)
        context = self.sequence(sequences, lengths.repeat_interleave(r)).view(b, r, d, -1)
        logits: torch.Tensor = self.head(context, position, present)
        return logits.float()

    def _encode(
        self, image: Float[torch.Tensor, "b d 1 h w"], lengths: Int64[torch.Tensor, " b"]
    ) -> Float[torch.Tensor, "b d r c"]:
        """Encode the slices that are there; the others stay 0 and cost nothing."""
        b, d = image.shape[:2]
        there = (torch.arange(d) < lengths[:, None]).flatten().nonzero().squeeze(1)
        there = there.to(image.device, non_blocking=True)
        slices = image.flatten(0, 1)[there].contiguous(memory_format=torch.channels_last)
        vectors: torch.Tensor = self.pool(self.encoder(slices))
        padded = vectors.new_zeros((b * d, *vectors.shape[1:])).index_copy(0, there, vectors)
        return padded.view(b, d, *vectors.shape[1:])
