"""The configuration of the network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SequenceName = Literal["lstm", "gru", "none"]
PoolingName = Literal["mean", "max", "attention"]
HeadName = Literal["cells", "rsna2022", "levels"]
NormName = Literal["none", "layer", "batch"]


class ModelConfig(BaseModel):
    """The network.

    ``weights`` is a file with the backbone's weights; ``pretrained`` has timm fetch them from its
    hub; with neither they are random. ``checkpointing`` computes the backbone's features twice
    instead of keeping them. ``frozen_stages`` counts the backbone's first stages whose weights and
    batch-norm averages are frozen.

    ``sequence`` runs over the slices, and ``pooling`` makes one vector of them. ``head`` is
    ``cells``, which pools each of the 25 cells at its own place; ``levels``, one head per level
    over the whole series; or ``rsna2022``, the head of the 2022 competition, with its ``norm``.

    ``shared_encoder`` and ``series_dropout``, the probability of leaving out each series in
    training, apply to models of studies only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: str = "resnet18"
    stride: Literal[8, 16, 32] = 16
    pretrained: bool = False
    weights: str = ""
    checkpointing: bool = False
    frozen_stages: int = Field(0, ge=0)
    channels_last: bool = True
    sequence: SequenceName = "lstm"
    hidden: int = Field(256, ge=1)
    layers: int = Field(1, ge=1)
    bidirectional: bool = True
    pooling: PoolingName = "attention"
    head: HeadName = "cells"
    norm: NormName = "none"
    dropout: float = Field(0.2, ge=0, lt=1)
    shared_encoder: bool = False
    series_dropout: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _weights_come_from_one_place(self) -> ModelConfig:
        if self.pretrained and self.weights:
            msg = "take weights from the hub (pretrained) or from a file (weights), not both"
            raise ValueError(msg)
        return self

    def without_weights(self) -> ModelConfig:
        """Return the same network with random weights, to be loaded afterwards."""
        return self.model_copy(update={"pretrained": False, "weights": ""})
