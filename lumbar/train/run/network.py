"""Build the network that a configuration names, and list its weights by stage."""

from __future__ import annotations

import torch
from torch import nn

from lumbar.cache.names import SeriesType
from lumbar.train.model.series import SeriesClassifier
from lumbar.train.model.study import StudyClassifier
from lumbar.train.run.config import RunConfig

Network = SeriesClassifier | StudyClassifier
"""All are called alike: see `lumbar.train.model.series.SeriesClassifier.forward`."""


def build_model(config: RunConfig, *, weights: bool = True) -> Network:
    """Return the network of a configuration.

    Without ``weights`` the backbone is not loaded with pretrained ones; a checkpoint's follow.

    Raises
    ------
    InputError, MissingError
        If timm does not have the backbone, or not for the crops, or its weights are not there.
    """
    model = config.model if weights else config.model.without_weights()
    size = (config.crop.height, config.crop.width)

    def field_mm(series_type: SeriesType) -> tuple[float, float]:
        pixel_mm = config.crop.pixel_mm_for(series_type)
        return size[0] * pixel_mm, size[1] * pixel_mm

    network: Network
    if config.sample == "study":
        fields = {t: field_mm(t) for t in config.series_types}
        network = StudyClassifier(model, config.series_types, size=size, field_mm=fields)
    else:
        own, disc = config.series_type, config.sample == "disc"
        network = SeriesClassifier(model, own, size=size, field_mm=field_mm(own), disc=disc)
    return network.to(memory_format=torch.channels_last) if model.channels_last else network


def stages(network: Network) -> list[list[nn.Parameter]]:
    """Return all weights, each once, from input to output.

    First the backbone's stem and its stages (those of several encoders joined), then the pooling
    over the plane, the sequence, the pooling over slices, and last the head.
    """
    encoders = [encoder.stages() for encoder in network.encoders]
    backbone = [[w for stage in same for w in stage] for same in zip(*encoders, strict=True)]
    behind = [[w for part in parts for w in part.parameters()] for parts in network.parts]
    return [stage for stage in [*backbone, *behind] if stage]
