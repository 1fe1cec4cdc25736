"""From the slices of a series to their vectors: encoded, pooled in the plane, in sequence."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.train.copying import to_device
from lumbar.train.model.anatomy import Anatomy
from lumbar.train.model.attention import RegionAttention, WholeSlice
from lumbar.train.model.config import ModelConfig

PlanePool = RegionAttention | WholeSlice

MULTIPLE = 32
"""What the number of slices is rounded up to: at most 31 more, a few of a hundred in a batch."""


def make_pool(
    config: ModelConfig, channels: int, anatomy: Anatomy, *, field_mm: tuple[float, float]
) -> PlanePool:
    """Return what brings a feature map to vectors: of each region, or of the whole slice."""
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

    With ``lengths`` (on the host) only the slices that are there are encoded; the others cost
    nothing. Without, all are, and nothing's size depends on the data. On a GPU the number that is
    encoded is rounded up where that changes no vector: see `places_to_encode`.
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
    """Return the places of the slices that are there among all N x D, and how many these are.

    Behind them the first one is named again, up to a ``multiple`` or to N x D if that is less: a
    GPU plans its convolutions anew for every number of slices that it has not seen.
    """
    there = (torch.arange(depth) < lengths[:, None]).flatten().nonzero().squeeze(1)
    count = len(there)
    more = min(-count % multiple, len(lengths) * depth - count)
    return torch.cat([there, there[:1].expand(more)]), count


def _encodes_each_by_itself(encoder: nn.Module) -> bool:
    """Say whether the others of a batch leave a slice's features as they are.

    Not so where a batch norm takes its mean and variance from the batch.
    """
    return not any(
        hasattr(module, "running_var") and (module.training or module.running_var is None)
        for module in encoder.modules()
    )


def in_sequence(
    sequence: nn.Module,
    vectors: Float[torch.Tensor, "n d r c"],
    present: Bool[torch.Tensor, "n d"],
    lengths: Int64[torch.Tensor, " n"] | None,
) -> Float[torch.Tensor, "n r d k"]:
    """Run the sequence over the slices of each region by itself."""
    r = vectors.shape[2]
    counted = present.sum(dim=1) if lengths is None else lengths
    regions = vectors.transpose(1, 2)
    output: torch.Tensor = sequence(regions.flatten(0, 1), counted.repeat_interleave(r))
    return output.view(-1, r, *output.shape[1:])
