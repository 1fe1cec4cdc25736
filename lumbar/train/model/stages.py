"""The weights of a network in the order of the data, for rates by layer and for the head alone."""

from __future__ import annotations

from torch import nn

from lumbar.train.model.networks import Network


def stages(network: Network) -> list[list[nn.Parameter]]:
    """Return all weights, each once, from input to output.

    First the backbone's stem and its stages (those of several encoders together), then what pools
    the plane, the sequence, what looks at the slices, and last the head.
    """
    encoders = [encoder.stages() for encoder in network.encoders]
    backbone = [[w for stage in same for w in stage] for same in zip(*encoders, strict=True)]
    behind = [[w for part in parts for w in part.parameters()] for parts in network.parts]
    return [stage for stage in [*backbone, *behind] if stage]
