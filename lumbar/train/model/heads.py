"""Heads: from pooled vectors to three logits per condition and level."""

from __future__ import annotations

from typing import assert_never

import torch
from jaxtyping import Float
from torch import nn

from lumbar.cache.errors import InputError
from lumbar.cache.names import CONDITION_GROUPS, CONDITIONS, LEVELS, N_SEVERITIES
from lumbar.train.device_tensors import as_slice
from lumbar.train.model.anatomy import Anatomy
from lumbar.train.model.attention import SlicePool
from lumbar.train.model.config import ModelConfig, NormName

N_CONDITIONS = len(CONDITIONS)
GRADE_HIDDEN = 128
GROUPS = tuple(as_slice(members) for members in CONDITION_GROUPS.values())
"""The conditions of each group."""


class GradeHead(nn.Module):
    """Grades each condition from its own vector.

    The left and the right of a condition share their weights.
    """

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.grade = nn.ModuleList(
            _two_layers(channels, N_SEVERITIES, dropout=dropout) for _ in CONDITION_GROUPS
        )

    def forward(self, conditions: Float[torch.Tensor, "b 5 l c"]) -> Float[torch.Tensor, "b 5 l 3"]:
        """Return the logits of each condition at each level."""
        logits = [
            grade(conditions[:, members].contiguous())
            for grade, members in zip(self.grade, GROUPS, strict=True)
        ]
        return torch.cat(logits, dim=1)


class CellHead(GradeHead):
    """Grades each of the 25 cells from its own vector plus an embedding of its level."""

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__(channels, dropout=dropout)
        self.level = nn.Parameter(torch.zeros(len(LEVELS), channels))

    def forward(self, cells: Float[torch.Tensor, "b 25 c"]) -> Float[torch.Tensor, "b 5 5 3"]:
        """Return the logits of each cell."""
        conditions = cells.view(-1, N_CONDITIONS, len(LEVELS), cells.shape[2])
        return super().forward(conditions + self.level)


class LevelHeads(nn.Module):
    """One head per level, with its own weights and its own pooled vector."""

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            _two_layers(channels, N_CONDITIONS * N_SEVERITIES, dropout=dropout) for _ in LEVELS
        )

    def forward(self, levels: Float[torch.Tensor, "b 5 c"]) -> Float[torch.Tensor, "b 5 5 3"]:
        """Return the logits of each condition at each level."""
        logits = [head(levels[:, level]) for level, head in enumerate(self.heads)]
        by_level = torch.stack(logits, dim=1).view(-1, len(LEVELS), N_CONDITIONS, N_SEVERITIES)
        return by_level.transpose(1, 2)


class Rsna2022Head(nn.Module):
    """The head of the 2022 cervical-spine competition over one vector of a series or study.

    Linear to 256, norm, dropout 0.3, leaky ReLU 0.1, linear to the logits. The published norm is
    batch norm, which needs more than one study per batch; single series take none or a layer norm.
    ``levels`` is 5, or 1 for a disc.
    """

    def __init__(self, channels: int, *, norm: NormName, levels: int = len(LEVELS)) -> None:
        super().__init__()
        self.levels = levels
        self.layers = nn.Sequential(
            nn.Linear(channels, 256),
            _norm(norm, 256),
            nn.Dropout(0.3),
            nn.LeakyReLU(0.1),
            nn.Linear(256, N_CONDITIONS * levels * N_SEVERITIES),
        )

    def forward(self, pooled: Float[torch.Tensor, "b 1 c"]) -> Float[torch.Tensor, "b 5 l 3"]:
        """Return the logits of each condition at each level."""
        logits: torch.Tensor = self.layers(pooled[:, 0])
        return logits.view(-1, N_CONDITIONS, self.levels, N_SEVERITIES)


def _two_layers(channels: int, outputs: int, *, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, GRADE_HIDDEN),
        nn.LeakyReLU(0.1),
        nn.Dropout(dropout),
        nn.Linear(GRADE_HIDDEN, outputs),
    )


def _norm(name: NormName, channels: int) -> nn.Module:
    match name:
        case "none":
            return nn.Identity()
        case "layer":
            return nn.LayerNorm(channels)
        case "batch":
            return nn.BatchNorm1d(channels)
        case _:
            assert_never(name)


def make_slice_pool(config: ModelConfig, channels: int, anatomy: Anatomy) -> SlicePool:
    """Return the pool with the queries of the configured head: one per cell, per level, or one."""
    match config.head:
        case "cells":
            return SlicePool(
                channels,
                region=anatomy.cell_region,
                pooling=config.pooling,
                position=anatomy.cell_position,
                spread=anatomy.position_spread,
            )
        case "levels":
            queries = len(LEVELS)
        case "rsna2022":
            queries = 1
        case _:
            assert_never(config.head)
    return SlicePool(channels, region=(0,) * queries, pooling=config.pooling)


def make_head(config: ModelConfig, channels: int, *, disc: bool = False) -> nn.Module:
    """Return the configured head of all 25 cells, or of the five conditions of one disc.

    Raises
    ------
    InputError
        If the head of a disc is to have one part per level.
    """
    match config.head:
        case "cells":
            return (GradeHead if disc else CellHead)(channels, dropout=config.dropout)
        case "rsna2022":
            return Rsna2022Head(channels, norm=config.norm, levels=1 if disc else len(LEVELS))
        case "levels":
            if disc:
                raise InputError(
                    what="a head with one part per level, where each sample is of one level",
                    where="model.head",
                    got="levels, with discs",
                    expected="cells or rsna2022",
                    cure="set model.head, or train on whole series",
                )
            return LevelHeads(channels, dropout=config.dropout)
        case _:
            assert_never(config.head)
