"""Losses over the cells that are known and that are trained."""

from lumbar.train.loss.cell_loss import CellLoss
from lumbar.train.loss.config import LossConfig

__all__ = ["CellLoss", "LossConfig"]
