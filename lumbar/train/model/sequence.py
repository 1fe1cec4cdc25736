"""What runs over the slices of a series; slices that are not there change nothing."""

from __future__ import annotations

from typing import assert_never

import torch
from jaxtyping import Float, Int64
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lumbar.train.model.config import ModelConfig, SequenceName


def recurrent_of(name: SequenceName) -> type[nn.LSTM | nn.GRU] | None:
    """Return the network of a name, None for none."""
    match name:
        case "lstm":
            return nn.LSTM
        case "gru":
            return nn.GRU
        case "none":
            return None
        case _:
            assert_never(name)


class SliceSequence(nn.Module):
    """A (bidirectional) LSTM or GRU over padded sequences, or nothing.

    Parameters
    ----------
    inputs
        Channels of a slice's vector.
    config
        Names the kind and its size; its dropout is between layers.
    """

    def __init__(self, inputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.channels = inputs
        self.recurrent: nn.LSTM | nn.GRU | None = None
        kind = recurrent_of(config.sequence)
        if kind is not None:
            self.channels = config.hidden * (2 if config.bidirectional else 1)
            self.recurrent = kind(
                inputs,
                config.hidden,
                config.layers,
                batch_first=True,
                bidirectional=config.bidirectional,
                dropout=config.dropout if config.layers > 1 else 0.0,
            )

    def forward(
        self, features: Float[torch.Tensor, "n d c"], lengths: Int64[torch.Tensor, " n"]
    ) -> Float[torch.Tensor, "n d k"]:
        """Return one vector a slice; ``lengths`` (on the host) counts the slices that are there."""
        if self.recurrent is None:
            return features
        # An empty sequence cannot be packed; one that is absent is run for a slice, and cleared.
        packed = pack_padded_sequence(
            features.float(), lengths.clamp(min=1), batch_first=True, enforce_sorted=False
        )
        with torch.autocast(features.device.type, enabled=False):
            output, _ = self.recurrent(packed)
        padded, _ = pad_packed_sequence(output, batch_first=True, total_length=features.shape[1])
        if (lengths == 0).any():
            there = (lengths > 0).to(padded.device, non_blocking=True)
            padded = padded * there[:, None, None]
        return padded
