"""From slices to vectors: encode, pool in the plane, run a sequence model.

Absent slices do not change the result.
"""

from __future__ import annotations

from typing import assert_never

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lumbar.train.device_tensors import to_device
from lumbar.train.model.anatomy import Anatomy
from lumbar.train.model.attention import RegionAttention, WholeSlice
from lumbar.train.model.config import ModelConfig, SequenceName

PlanePool = RegionAttention | WholeSlice

MULTIPLE = 32
"""A GPU encodes a multiple of this many slices: at most 31 more, a few per cent of a batch."""


def make_plane_pool(
    config: ModelConfig, channels: int, anatomy: Anatomy, *, field_mm: tuple[float, float]
) -> PlanePool:
    """Return the pool of a feature map: one vector per region, or one of the whole slice."""
    if config.head == "cells":
        return RegionAttention(channels, anatomy.regions, field_mm=field_mm)
    return WholeSlice(channels)


def slice_vectors(
    encoder: nn.Module,
    pool: nn.Module,
    image: Float[torch.Tensor, "n d 1 h w"],
    present: Bool[torch.Tensor, "n d"],
    lengths: Int64[torch.Tensor, " n"] | None,
) -> Float[torch.Tensor, "n d r c"]:
    """Return the vectors of each slice's regions, 0 for absent slices.

    With ``lengths`` (on the host) only present slices are encoded. Without, all are, and no size
    depends on the data. On a GPU the number is rounded up where that changes no vector: see
    `places_to_encode`.
    """
    n, d = image.shape[:2]
    if lengths is None or (lengths == d).all():
        every: torch.Tensor = pool(encoder(image.flatten(0, 1)))
        return every.view(n, d, *every.shape[1:]).masked_fill(~present[:, :, None, None], 0.0)
    rounded = image.device.type != "cpu" and _encodes_each_by_itself(encoder)
    places, count = places_to_encode(lengths, d, multiple=MULTIPLE if rounded else 1)
    places = to_device(places, image.device)
    vectors: torch.Tensor = pool(encoder(image.flatten(0, 1)[places]))
    there, vectors = places[:count], vectors[:count]
    padded = vectors.new_zeros((n * d, *vectors.shape[1:])).index_copy(0, there, vectors)
    return padded.view(n, d, *vectors.shape[1:])


def places_to_encode(
    lengths: Int64[torch.Tensor, " n"], depth: int, *, multiple: int
) -> tuple[Int64[torch.Tensor, " m"], int]:
    """Return the places of the present slices among all N x D, and their number.

    The first place is repeated behind them up to a ``multiple``, N x D at most: a GPU selects
    convolution algorithms anew for every new number of slices.
    """
    there = (torch.arange(depth) < lengths[:, None]).flatten().nonzero().squeeze(1)
    count = len(there)
    more = min(-count % multiple, len(lengths) * depth - count)
    return torch.cat([there, there[:1].expand(more)]), count


def _encodes_each_by_itself(encoder: nn.Module) -> bool:
    """Return whether a slice's features are independent of the rest of the batch.

    They are not where a batch norm takes its mean and variance from the batch.
    """
    return not any(
        hasattr(module, "running_var") and (module.training or module.running_var is None)
        for module in encoder.modules()
    )


def run_sequence(
    sequence: nn.Module,
    vectors: Float[torch.Tensor, "n d r c"],
    present: Bool[torch.Tensor, "n d"],
    lengths: Int64[torch.Tensor, " n"] | None,
) -> Float[torch.Tensor, "n r d k"]:
    """Run the sequence model over the slices, separately for each region."""
    r = vectors.shape[2]
    counted = present.sum(dim=1) if lengths is None else lengths
    regions = vectors.transpose(1, 2)
    output: torch.Tensor = sequence(regions.flatten(0, 1), counted.repeat_interleave(r))
    return output.view(-1, r, *output.shape[1:])


def _recurrent_type(name: SequenceName) -> type[nn.LSTM | nn.GRU] | None:
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
    """A (bidirectional) LSTM or GRU over padded sequences, or the identity.

    Parameters
    ----------
    inputs
        Channels of a slice's vector.
    config
        Type and size; the dropout is between layers.
    """

    def __init__(self, inputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.channels = inputs
        self.recurrent: nn.LSTM | nn.GRU | None = None
        kind = _recurrent_type(config.sequence)
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
        """Return one vector per slice; ``lengths`` (on the host) counts the present slices."""
        if self.recurrent is None:
            return features
        with torch.autocast(features.device.type, enabled=False):
            # An empty sequence cannot be packed: it runs over one slice, and is cleared below.
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

    ``lengths`` lie on the host and are at least 1. This is torch's packing of unsorted sequences,
    except that the order is computed on the host, so that the host does not wait for the device.
    """
    depth = features.shape[1]
    # Not on the CPU: packed sequences sum in another order there, and runs keep their bits.
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
