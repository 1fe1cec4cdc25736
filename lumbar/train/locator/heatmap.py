"""From heat maps over slices and pixels to places, and the loss of heat maps.

The place is the mean of the heat map, which is finer than its grid and differentiable (Sun et al.,
Integral Human Pose Regression, 2018). The loss also compares the heat map with a Gaussian around
the true place (Nibali et al., Numerical Coordinate Regression, 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float

from lumbar.train.locator.config import LocatorConfig

SIGMA_MM = 10.0
"""Standard deviation of the target Gaussian within a slice."""
SIGMA_SLICES = 1.0
"""Its standard deviation over slices."""
ERROR_MM = 10.0
"""The distance from the true place that costs as much as one nat of cross entropy."""

LogHeat = Float[torch.Tensor, "b 5 d fh fw"]


@dataclass(frozen=True, slots=True)
class Means:
    """The probability of each slice, and the mean place within it, in the crop's pixels."""

    slice: Float[torch.Tensor, "b 5 d"]
    wh: Float[torch.Tensor, "b 5 d 2"]


@dataclass(frozen=True, slots=True)
class TruePlaces:
    """The true places of a batch.

    ``d`` is in the volume's slices, ``wh`` in the crop's pixels; both are 0 where not ``known``.
    ``slices`` are the volume's slices in each sample; ``slice_mm`` is their distance.
    """

    d: Float[torch.Tensor, "b 5"]
    wh: Float[torch.Tensor, "b 5 2"]
    known: Bool[torch.Tensor, "b 5"]
    slices: Float[torch.Tensor, "b d"]
    slice_mm: Float[torch.Tensor, " b"]


def means(log_heat: LogHeat, config: LocatorConfig) -> Means:
    """Return the mean place in each slice."""
    heat = log_heat.exp()
    columns, rows = grid(log_heat, config)
    of_slice = heat.sum(dim=(3, 4))
    w, h = (heat.sum(dim=3) * columns).sum(dim=3), (heat.sum(dim=4) * rows).sum(dim=3)
    wh = torch.stack([w, h], dim=3)
    return Means(of_slice, wh / of_slice[..., None].clamp(min=torch.finfo(wh.dtype).tiny))


def place_loss(
    log_heat: LogHeat,
    present: Bool[torch.Tensor, "b d"],
    true: TruePlaces,
    config: LocatorConfig,
) -> Float[torch.Tensor, ""]:
    """Return the mean loss of the known discs of a batch; 0 where none is known."""
    found = means(log_heat, config)
    d = (found.slice * true.slices[:, None]).sum(dim=2)
    wh = (found.slice[..., None] * found.wh).sum(dim=2)
    error_mm = (wh - true.wh).abs().sum(dim=2) * config.pixel_mm
    error_mm = error_mm + (d - true.d).abs() * true.slice_mm[:, None]
    of_disc = _cross_entropy(log_heat, present, true, config) + error_mm / ERROR_MM
    return (of_disc * true.known).sum() / true.known.sum().clamp(min=1)


def grid(
    log_heat: LogHeat, config: LocatorConfig
) -> tuple[Float[torch.Tensor, " fw"], Float[torch.Tensor, " fh"]]:
    """Return the crop's columns and rows at the centres of the grid's cells."""
    height, width = log_heat.shape[3:]
    columns, rows = (
        (torch.arange(cells, device=log_heat.device) + 0.5) * (size / cells) - 0.5
        for cells, size in ((width, config.width), (height, config.height))
    )
    return columns, rows


def _cross_entropy(
    log_heat: LogHeat,
    present: Bool[torch.Tensor, "b d"],
    true: TruePlaces,
    config: LocatorConfig,
) -> Float[torch.Tensor, "b 5"]:
    """Return the cross entropy between the heat map and a Gaussian around each true place."""
    columns, rows = grid(log_heat, config)
    sigma = SIGMA_MM / config.pixel_mm
    of_column = _gaussian(columns - true.wh[..., :1], sigma)
    of_row = _gaussian(rows - true.wh[..., 1:], sigma)
    away = true.slices[:, None] - true.d[..., None]
    of_slice = _gaussian(away.masked_fill(~present[:, None], torch.inf), SIGMA_SLICES)
    there = log_heat.masked_fill(~present[:, None, :, None, None], 0)
    return -torch.einsum("bld,blw,blh,bldhw->bl", of_slice, of_column, of_row, there)


def _gaussian(distance: Float[torch.Tensor, "b 5 n"], width: float) -> Float[torch.Tensor, "b 5 n"]:
    """Return the weights of a normal distribution, which sum to one."""
    return (-0.5 * (distance / width) ** 2).softmax(dim=2)
