"""From the slices of a series to their vectors: encoded, pooled in the plane, in sequence."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.train.model.anatomy import Anatomy
from lumbar.train.model.attention import RegionAttention, WholeSlice
from lumbar.train.model.config import ModelConfig

PlanePool = RegionAttention | WholeSlice


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
    nothing. Without, all are, and nothing's size depends on the data.
    """
    n, d = image.shape[:2]
    if lengths is None:
        every: torch.Tensor = pool(encoder(image.flatten(0, 1)))
        return every.view(n, d, *every.shape[1:]).masked_fill(~present[:, :, None, None], 0.0)
    there = (torch.arange(d) < lengths[:, None]).flatten().nonzero().squeeze(1)
    there = there.to(image.device, non_blocking=True)
    vectors: torch.Tensor = pool(encoder(image.flatten(0, 1)[there]))
    padded = vectors.new_zeros((n * d, *vectors.shape[1:])).index_copy(0, there, vectors)
    return padded.view(n, d, *vectors.shape[1:])


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
