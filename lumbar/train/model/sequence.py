"""The LSTM over the slices of a series; slices that are not there change nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class SliceSequence(nn.Module):
    """A (bidirectional) LSTM over padded sequences.

    Parameters
    ----------
    inputs, hidden, layers
        Sizes; the output has ``hidden`` channels a direction.
    bidirectional
        Whether each slice sees those after it too.
    dropout
        Between layers.
    """

    def __init__(
        self, inputs: int, *, hidden: int, layers: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            inputs,
            hidden,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.channels = hidden * (2 if bidirectional else 1)

    def forward(
        self, features: Float[torch.Tensor, "n d c"], lengths: Int64[torch.Tensor, " n"]
    ) -> Float[torch.Tensor, "n d k"]:
        """Return one vector a slice; ``lengths`` (on the host) counts the slices that are there."""
        packed = pack_padded_sequence(
            features.float(), lengths, batch_first=True, enforce_sorted=False
        )
        with torch.autocast(features.device.type, enabled=False):
            output, _ = self.lstm(packed)
        padded, _ = pad_packed_sequence(output, batch_first=True, total_length=features.shape[1])
        return padded
