"""Attention that starts at a place: a Gaussian prior plus what the features say."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.train.model.anatomy import Region


class WholeSlice(nn.Module):
    """Pools a feature map to one vector, its mean: one region, the whole slice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Float[torch.Tensor, "n c h w"]) -> Float[torch.Tensor, "n 1 c"]:
        """Return the mean over the plane."""
        return features.mean(dim=(2, 3))[:, None]


class RegionAttention(nn.Module):
    """Pools a feature map to one vector a region: the attended mean, and the peak nearby.

    The mean alone drowns a finding of a few millimetres; the peak of every channel, weighted with
    how near to the region it lies, keeps it.

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
        """Return mean and peak of each region, ``k`` being twice ``c``."""
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


class SliceAttention(nn.Module):
    """Pools the slices to one vector a cell.

    Parameters
    ----------
    channels
        Of a slice's vector.
    region
        For each cell, the region whose slices it pools.
    position, spread
        For each cell, the fraction of the stack at which it usually lies; the spread of all.
    """

    region: Int64[torch.Tensor, " cells"]

    def __init__(
        self,
        channels: int,
        *,
        region: tuple[int, ...],
        position: tuple[float, ...],
        spread: float,
    ) -> None:
        super().__init__()
        self.register_buffer("region", torch.tensor(region), persistent=False)
        self.position = nn.Parameter(torch.tensor(position))
        self.log_spread = nn.Parameter(torch.full((len(position),), spread).log())
        self.score = nn.Linear(channels, len(position), bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(
        self,
        slices: Float[torch.Tensor, "b r d c"],
        position: Float[torch.Tensor, "b d"],
        present: Bool[torch.Tensor, "b d"],
    ) -> Float[torch.Tensor, "b cells c"]:
        """Return the attended vector of each cell; slices that are not present weigh nothing."""
        away = (position[:, None, :] - self.position[:, None]) / self.log_spread.exp()[:, None]
        every = self.score(slices).permute(0, 3, 1, 2)
        cells = torch.arange(len(self.region), device=slices.device)
        scores = every[:, cells, self.region] - 0.5 * away.square()
        weights = scores.masked_fill(~present[:, None, :], -torch.inf).softmax(dim=2)
        return torch.einsum("bkd,bkdc->bkc", weights, slices[:, self.region])
