"""Losses over the known and trained cells of a batch."""

from lumbar.train.loss.cell_loss import CellLoss
from lumbar.train.loss.config import LossConfig

__all__ = ["CellLoss", "LossConfig"]
