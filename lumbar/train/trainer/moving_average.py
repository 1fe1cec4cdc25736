"""The moving average of a network's weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from lumbar.train.run.network import Network


class MovingAverage(nn.Module):
    """An exponential moving average of a network's weights and buffers: a network of its own.

    It starts with the weights after the first step. Numbers that are whole, as the steps that a
    batch norm counts, are taken as they are. Its state has the names of torch's `AveragedModel`,
    which on a GPU copies the number of steps to the device at every step, and waits for it.
    """

    n_averaged: torch.Tensor
    module: Network

    def __init__(self, network: Network, *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.module = deepcopy(network)
        for part in self.module.modules():
            # A copy's weights lie apart, and cuDNN would put them together at every call.
            if isinstance(part, nn.RNNBase):
                part.flatten_parameters()
        # On the host, where reading it does not wait for the device.
        self.register_buffer("n_averaged", torch.tensor(0))

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Move the average towards the weights of a network after a step."""
        started = bool(self.n_averaged > 0)
        of_type: dict[torch.dtype, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for own, now in zip(_values(self.module), _values(network), strict=True):
            owns, nows = of_type.setdefault(own.dtype, ([], []))
            owns.append(own)
            nows.append(now)
        for dtype, (owns, nows) in of_type.items():
            if started and dtype.is_floating_point:
                torch._foreach_lerp_(owns, nows, 1 - self.decay)
            else:
                torch._foreach_copy_(owns, nows)
        self.n_averaged += 1


def _values(network: Network) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
