"""Heads: from the vectors of the slices to 25 x 3 logits."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import nn

from lumbar.cache.names import CONDITION_GROUPS, CONDITIONS, LEVELS, N_CELLS, N_SEVERITIES
from lumbar.train.model.anatomy import Anatomy
from lumbar.train.model.attention import SliceAttention

NormName = Literal["none", "layer", "batch"]


class CellHead(nn.Module):
    """Looks for each cell at its own place, and grades it from what it finds there.

    Cells of a condition group share their weights (a left foramen is graded as a right one is), and
    know their level by an embedding.
    """

    def __init__(self, channels: int, anatomy: Anatomy, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.look = SliceAttention(
            channels,
            region=anatomy.cell_region,
            position=anatomy.cell_position,
            spread=anatomy.position_spread,
        )
        self.level = nn.Parameter(torch.zeros(len(LEVELS), channels))
        self.grade = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, hidden),
                nn.LeakyReLU(0.1),
                nn.Dropout(dropout),
                nn.Linear(hidden, N_SEVERITIES),
            )
            for _ in CONDITION_GROUPS
        )

    def forward(
        self,
        regions: Float[torch.Tensor, "b r d c"],
        position: Float[torch.Tensor, "b d"],
        present: Bool[torch.Tensor, "b d"],
    ) -> Float[torch.Tensor, "b 25 3"]:
        """Return the logits of each cell."""
        cells = self.look(regions, position, present)
        conditions = cells.view(len(cells), len(CONDITIONS), len(LEVELS), -1) + self.level
        logits = [
            grade(conditions[:, list(members)])
            for grade, members in zip(self.grade, CONDITION_GROUPS.values(), strict=True)
        ]
        return torch.cat(logits, dim=1).flatten(1, 2)


class Rsna2022Head(nn.Module):
    """The head of the 2022 cervical-spine competition over a whole series.

    Linear to 256, norm, dropout 0.3, leaky ReLU 0.1, linear to 75. As published the norm is batch
    norm, which needs more than one study a batch; for single series it is left out or a layer norm.
    """

    def __init__(self, channels: int, *, norm: NormName) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)
        norms = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
        self.layers = nn.Sequential(
            nn.Linear(channels, 256),
            norms[norm](256),
            nn.Dropout(0.3),
            nn.LeakyReLU(0.1),
            nn.Linear(256, N_CELLS * N_SEVERITIES),
        )

    def forward(
        self,
        regions: Float[torch.Tensor, "b 1 d c"],
        position: Float[torch.Tensor, "b d"],
        present: Bool[torch.Tensor, "b d"],
    ) -> Float[torch.Tensor, "b 25 3"]:
        """Return the logits from the attended mean of the slices; ``position`` is not used."""
        slices = regions[:, 0]
        scores = self.score(slices).squeeze(2).masked_fill(~present, -torch.inf)
        pooled = torch.einsum("bd,bdc->bc", scores.softmax(dim=1), slices)
        logits: torch.Tensor = self.layers(pooled)
        return logits.view(-1, N_CELLS, N_SEVERITIES)
