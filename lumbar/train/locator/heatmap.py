"""From chances over slices and pixels to places, and the loss of such chances.

The place is the mean of the chances, which is finer than their grid and can be trained (Sun et al.,
Integral Human Pose Regression, 2018); the chances themselves are drawn to a bell around the true
place (Nibali et al., Numerical Coordinate Regression, 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float

from lumbar.train.locator.config import LocatorConfig

BELL_MM = 10.0
"""Standard deviation within a slice of the bell that chances are drawn to."""
BELL_SLICES = 1.0
"""Its standard deviation over slices."""
ERROR_MM = 10.0
"""The distance from the true place that weighs as much as one nat of the chances."""

LogChances = Float[torch.Tensor, "b 5 d fh fw"]


@dataclass(frozen=True, slots=True)
class Means:
    """The chance of each slice, and where in it the place would be, in the crop's pixels."""

    slice: Float[torch.Tensor, "b 5 d"]
    wh: Float[torch.Tensor, "b 5 d 2"]


@dataclass(frozen=True, slots=True)
class TruePlaces:
    """The true places of a batch.

    ``d`` is in the volume's slices, ``wh`` in the crop's pixels; both are 0 where not ``known``.
    ``slices`` are the volume's slices that each sample holds; ``slice_mm`` is their distance.
    """

    d: Float[torch.Tensor, "b 5"]
    wh: Float[torch.Tensor, "b 5 2"]
    known: Bool[torch.Tensor, "b 5"]
    slices: Float[torch.Tensor, "b d"]
    slice_mm: Float[torch.Tensor, " b"]


def means(log_chances: LogChances, config: LocatorConfig) -> Means:
    """Return the mean places of each slice."""
    chances = log_chances.exp()
    columns, rows = grid(log_chances, config)
    of_slice = chances.sum(dim=(3, 4))
    wh = torch.stack(
        [
            (chances.sum(dim=3) * columns).sum(dim=3),
            (chances.sum(dim=4) * rows).sum(dim=3),
        ],
        dim=3,
    )
    return Means(of_slice, wh / of_slice[..., None].clamp(min=torch.finfo(wh.dtype).tiny))


def place_loss(
    log_chances: LogChances,
    present: Bool[torch.Tensor, "b d"],
    wanted: TruePlaces,
    config: LocatorConfig,
) -> Float[torch.Tensor, ""]:
    """Return the mean loss of the known discs of a batch; 0 where none is known."""
    found = means(log_chances, config)
    d = (found.slice * wanted.slices[:, None]).sum(dim=2)
    wh = (found.slice[..., None] * found.wh).sum(dim=2)
    error_mm = (wh - wanted.wh).abs().sum(dim=2) * config.pixel_mm
    error_mm = error_mm + (d - wanted.d).abs() * wanted.slice_mm[:, None]
    of_disc = _cross_entropy(log_chances, present, wanted, config) + error_mm / ERROR_MM
    return (of_disc * wanted.known).sum() / wanted.known.sum().clamp(min=1)


def grid(
    log_chances: LogChances, config: LocatorConfig
) -> tuple[Float[torch.Tensor, " fw"], Float[torch.Tensor, " fh"]]:
    """Return the columns and rows of the crop at the middles of the grid's cells."""
    height, width = log_chances.shape[3:]
    columns, rows = (
        (torch.arange(cells, device=log_chances.device) + 0.5) * (size / cells) - 0.5
        for cells, size in ((width, config.width), (height, config.height))
    )
    return columns, rows


def _cross_entropy(
    log_chances: LogChances,
    present: Bool[torch.Tensor, "b d"],
    wanted: TruePlaces,
    config: LocatorConfig,
) -> Float[torch.Tensor, "b 5"]:
    """Return the cross entropy of the chances to a bell around each true place."""
    columns, rows = grid(log_chances, config)
    bell = BELL_MM / config.pixel_mm
    of_column = _bell(columns - wanted.wh[..., :1], bell)
    of_row = _bell(rows - wanted.wh[..., 1:], bell)
    away = wanted.slices[:, None] - wanted.d[..., None]
    of_slice = _bell(away.masked_fill(~present[:, None], torch.inf), BELL_SLICES)
    there = log_chances.masked_fill(~present[:, None, :, None, None], 0)
    return -torch.einsum("bld,blw,blh,bldhw->bl", of_slice, of_column, of_row, there)


def _bell(distance: Float[torch.Tensor, "b 5 n"], width: float) -> Float[torch.Tensor, "b 5 n"]:
    """Return weights that sum to one and fall off as a normal distribution does."""
    return (-0.5 * (distance / width) ** 2).softmax(dim=2)
