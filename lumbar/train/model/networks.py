"""The networks of a run: of series, of discs, of studies."""

from __future__ import annotations

import torch

from lumbar.cache.names import SeriesType
from lumbar.train.config import RunConfig
from lumbar.train.model.disc import DiscClassifier
from lumbar.train.model.series import SeriesClassifier
from lumbar.train.model.study import StudyClassifier

Network = SeriesClassifier | DiscClassifier | StudyClassifier
"""All are called alike: see `lumbar.train.model.series.SeriesClassifier.forward`."""


def build_model(config: RunConfig, *, weights: bool = True) -> Network:
    """Return the network of a configuration.

    Without ``weights`` no backbone's are asked for: another's will be put in afterwards.

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
        family = DiscClassifier if config.sample == "disc" else SeriesClassifier
        own = config.series_type
        network = family(model, own, size=size, field_mm=field_mm(own))
    return network.to(memory_format=torch.channels_last) if model.channels_last else network
