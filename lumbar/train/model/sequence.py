"""What runs over the slices of a series; slices that are not there change nothing."""

from __future__ import annotations

from typing import assert_never

import torch
from jaxtyping import Float, Int64
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lumbar.train.copying import to_device
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
        with torch.autocast(features.device.type, enabled=False):
            # An empty sequence cannot be packed; an absent one is run for a slice, and cleared.
            output: torch.Tensor = run_over(self.recurrent, features.float(), lengths.clamp(min=1))
        if (lengths == 0).any():
            output = output * to_device(lengths > 0, output.device)[:, None, None]
        return output


@torch.compiler.disable  # type: ignore[untyped-decorator]
def run_over(
    recurrent: nn.LSTM | nn.GRU,
    features: Float[torch.Tensor, "n d c"],
    lengths: Int64[torch.Tensor, " n"],
) -> Float[torch.Tensor, "n d k"]:
    """Run a recurrent network over padded sequences; 0 behind the last of each.

    ``lengths`` lie on the host and are at least 1. As torch's packing of sequences that are not
    sorted, but the host does not wait for the device: the order is found on the host and copied.
    """
    depth = features.shape[1]
    # On the CPU a packed sequence adds up in another order, and runs are to keep their bits.
    if features.device.type != "cpu" and (lengths == lengths[0]).all():
        longest = int(lengths[0])
        whole: torch.Tensor = recurrent(features[:, :longest])[0]
        return functional.pad(whole, (0, 0, 0, depth - longest)) if depth > longest else whole
    falling, order = lengths.sort(descending=True)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    order, back = to_device(torch.stack([order, back]), features.device)
    packed = pack_padded_sequence(features.index_select(0, order), falling, batch_first=True)
    output, _ = pad_packed_sequence(recurrent(packed)[0], batch_first=True, total_length=depth)
    return output.index_select(0, back)
