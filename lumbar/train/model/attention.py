"""Pooling by attention that starts at a place: a Gaussian prior plus a learned score."""

from __future__ import annotations

from typing import assert_never

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.train.model.anatomy import Region
from lumbar.train.model.config import PoolingName


class WholeSlice(nn.Module):
    """Pools a feature map to its mean: one region, the whole slice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Float[torch.Tensor, "n c h w"]) -> Float[torch.Tensor, "n 1 c"]:
        """Return the mean over the plane."""
        return features.mean(dim=(2, 3))[:, None]


class RegionAttention(nn.Module):
    """Pools a feature map to one vector per region: the attention mean, and the maximum nearby.

    A finding of a few millimetres hardly changes the mean. The maximum of every channel, weighted
    by its distance from the region, keeps it.

    Parameters
    ----------
    channels
        Of the feature map.
    regions
        Where each region usually lies.
    field_mm
        Height and width of the image in millimetres.
    """

    def __init__(
        self, channels: int, regions: tuple[Region, ...], *, field_mm: tuple[float, float]
    ) -> None:
        super().__init__()
        self.channels = 2 * channels
        field = torch.tensor(field_mm)
        self.centre = nn.Parameter(torch.tensor([r.centre_mm for r in regions]) / field)
        self.log_spread = nn.Parameter((torch.tensor([r.spread_mm for r in regions]) / field).log())
        self.score = nn.Conv2d(channels, len(regions), kernel_size=1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, features: Float[torch.Tensor, "n c h w"]) -> Float[torch.Tensor, "n r k"]:
        """Return mean and maximum of each region; ``k`` is twice ``c``."""
        height, width = features.shape[2:]
        down = (torch.arange(height, device=features.device) + 0.5) / height - 0.5
        across = (torch.arange(width, device=features.device) + 0.5) / width - 0.5
        spread = self.log_spread.exp()
        prior_down = ((down - self.centre[:, :1]) / spread[:, :1]).square()
        prior_across = ((across - self.centre[:, 1:]) / spread[:, 1:]).square()
        prior = -0.5 * (prior_down[:, :, None] + prior_across[:, None, :]).flatten(1)
        pixels = features.flatten(2)
        weights = (self.score(features).flatten(2).float() + prior).softmax(dim=2)
        mean = torch.einsum("nrp,ncp->nrc", weights.to(pixels.dtype), pixels)
        nearness = prior.exp().to(pixels.dtype)
        peak = torch.stack([(pixels * near).amax(dim=2) for near in nearness], dim=1)
        return torch.cat([mean, peak], dim=2)


class SlicePool(nn.Module):
    """Pools the slices of a series to one vector per attention query.

    Parameters
    ----------
    channels
        Of a slice's vector.
    region
        For each query, the region whose slices it pools.
    pooling
        ``mean`` or ``max`` of the slices, or ``attention``: a weighted mean with learned weights
        that starts as ``mean``.
    position, spread
        For each query, the fraction of the stack at which it usually lies, and the initial spread.
        Slices far away weigh little. Without a position all slices weigh the same.
    """

    region: Int64[torch.Tensor, " q"]

    def __init__(
        self,
        channels: int,
        *,
        region: tuple[int, ...],
        pooling: PoolingName,
        position: tuple[float, ...] | None = None,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        self.pooling: PoolingName = pooling
        self.register_buffer("region", torch.tensor(region), persistent=False)
        self.position: nn.Parameter | None = None
        if position is not None:
            self.position = nn.Parameter(torch.tensor(position))
            self.log_spread = nn.Parameter(torch.full((len(position),), spread).log())
        if pooling == "attention":
            self.score = nn.Linear(channels, len(region), bias=False)
            nn.init.zeros_(self.score.weight)

    def forward(
        self,
        slices: Float[torch.Tensor, "b r d c"],
        position: Float[torch.Tensor, "b d"],
        present: Bool[torch.Tensor, "b d"],
    ) -> Float[torch.Tensor, "b q c"]:
        """Return the vector of each query, 0 without any slice; absent slices weigh nothing."""
        score = self._nearness(position.masked_fill(~present, 0.0))
        chosen = slices[:, self.region]
        there = present[:, None, :]
        match self.pooling:
            case "max":
                near = chosen * score.exp().to(chosen.dtype)[..., None]
                peak = near.masked_fill(~there[..., None], -torch.inf).amax(dim=2)
                return peak.masked_fill(~there.any(dim=2, keepdim=True), 0.0)
            case "attention":
                every = self.score(slices).permute(0, 3, 1, 2)
                queries = torch.arange(len(self.region), device=slices.device)
                score = score + every[:, queries, self.region]
            case "mean":
                pass
            case _:
                assert_never(self.pooling)
        weights = masked_softmax(score, there, dim=2)
        return torch.einsum("bqd,bqdc->bqc", weights, chosen)

    def _nearness(self, position: Float[torch.Tensor, "b d"]) -> Float[torch.Tensor, "b #q d"]:
        """Return the logarithm of each slice's weight by its place."""
        if self.position is None:
            return torch.zeros_like(position)[:, None]
        away = (position[:, None, :] - self.position[:, None]) / self.log_spread.exp()[:, None]
        return -0.5 * away.square()


def masked_softmax(
    score: Float[torch.Tensor, "*n"], there: Bool[torch.Tensor, "*#n"], *, dim: int
) -> Float[torch.Tensor, "*n"]:
    """Return weights that sum to one over the entries that are there; 0 where none is."""
    # A finite minimum: a softmax of -inf alone gives NaN, forwards and backwards.
    lowest = torch.finfo(score.dtype).min
    return score.masked_fill(~there, lowest).softmax(dim=dim) * there
