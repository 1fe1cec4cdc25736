"""The network that finds discs: one heat map per level over all slices of a series.

Convolutions give the place of discs within every slice. A recurrent network over the slices gives
the slice of each level, since a single axial slice does not show its level.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn
from torch.nn import functional

from lumbar.cache.names import LEVELS
from lumbar.train.device_tensors import to_device
from lumbar.train.model.sequence import run_over

CHANNELS = (16, 32, 48, 64, 64)
"""Channels of the feature maps at strides 2, 4, 8, 16 and 32."""
FINEST = 1
"""Index in `CHANNELS` of the decoder's output: stride 4."""
HIDDEN = 48
GROUPS = 8


class LocatorNetwork(nn.Module):
    """A U-Net on every slice, and a recurrent network over the slices.

    After Ronneberger et al., U-Net (2015), with the coordinates of the pixels as further channels
    (Liu et al., CoordConv, 2018).
    """

    def __init__(self) -> None:
        super().__init__()
        above = (3, *CHANNELS[:-1])
        self.down = nn.ModuleList(
            _block(before, after, stride=2) for before, after in zip(above, CHANNELS, strict=True)
        )
        self.up = nn.ModuleList(
            _block(CHANNELS[at] + CHANNELS[at + 1], CHANNELS[at], stride=1)
            for at in reversed(range(FINEST, len(CHANNELS) - 1))
        )
        self.place = nn.Conv2d(CHANNELS[FINEST], len(LEVELS), 1)
        self.sequence = nn.GRU(2 * CHANNELS[-1] + 1, HIDDEN, batch_first=True, bidirectional=True)
        self.slice = nn.Linear(2 * HIDDEN, len(LEVELS))

    def forward(
        self,
        image: Float[torch.Tensor, "b d 1 h w"],
        present: Bool[torch.Tensor, "b d"],
        position: Float[torch.Tensor, "b d"],
        lengths: Int64[torch.Tensor, " b"],
    ) -> Float[torch.Tensor, "b 5 d fh fw"]:
        """Return the logarithm of the heat maps, which sum to one over (d, fh, fw)."""
        b, d = image.shape[:2]
        there = (torch.arange(d) < lengths[:, None]).flatten().nonzero().squeeze(1)
        there = to_device(there, image.device)
        of_pixel, summary = self._u_net(image.flatten(0, 1)[there])
        of_pixel = _scatter(of_pixel, there, b * d)
        of_pixel = of_pixel.view(b, d, *of_pixel.shape[1:]).transpose(1, 2)
        summary = _scatter(summary, there, b * d).view(b, d, -1)
        of_slice = self._slice_scores(torch.cat([summary, position[..., None]], dim=2), lengths)
        score = of_pixel + of_slice[..., None, None]
        score = score.masked_fill(~present[:, None, :, None, None], -torch.inf)
        log_heat: torch.Tensor = score.flatten(2).log_softmax(dim=2).view_as(score)
        return log_heat

    def _u_net(
        self, slices: Float[torch.Tensor, "n 1 h w"]
    ) -> tuple[Float[torch.Tensor, "n 5 fh fw"], Float[torch.Tensor, "n c"]]:
        """Return the score of each level at each pixel, and a summary vector per slice."""
        maps = [_with_coordinates(slices)]
        for block in self.down:
            maps.append(block(maps[-1]))
        merged = maps[-1]
        for block, skip in zip(self.up, reversed(maps[1 + FINEST : -1]), strict=True):
            enlarged = functional.interpolate(merged, skip.shape[2:], mode="nearest")
            merged = block(torch.cat([skip, enlarged], dim=1))
        deepest = maps[-1].flatten(2)
        summary = torch.cat([deepest.mean(dim=2), deepest.amax(dim=2)], dim=1)
        return self.place(merged), summary

    def _slice_scores(
        self, slices: Float[torch.Tensor, "b d c"], lengths: Int64[torch.Tensor, " b"]
    ) -> Float[torch.Tensor, "b 5 d"]:
        """Return the score of each level in each slice, from all slices of the series."""
        scores: torch.Tensor = self.slice(run_over(self.sequence, slices, lengths))
        return scores.transpose(1, 2)


def _block(before: int, after: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(GROUPS, after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, after),
        nn.ReLU(inplace=True),
    )


def _scatter(
    values: Float[torch.Tensor, "m *c"], there: Int64[torch.Tensor, " m"], n: int
) -> Float[torch.Tensor, "n *c"]:
    """Return ``n`` values: the given ones at their places, 0 at absent slices."""
    return values.new_zeros((n, *values.shape[1:])).index_copy(0, there, values)


def _with_coordinates(slices: Float[torch.Tensor, "n 1 h w"]) -> Float[torch.Tensor, "n 3 h w"]:
    """Add two channels: the rows and columns of the pixels, from -1 to 1."""
    n, _, height, width = slices.shape
    rows = torch.linspace(-1, 1, height, device=slices.device, dtype=slices.dtype)
    columns = torch.linspace(-1, 1, width, device=slices.device, dtype=slices.dtype)
    return torch.cat(
        [
            slices,
            rows[:, None].expand(n, 1, height, width),
            columns.expand(n, 1, height, width),
        ],
        dim=1,
    )
