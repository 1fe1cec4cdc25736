"""Networks whose tensor sizes do not depend on the data, so that they can be exported.

Packed sequences and a choice of slices have sizes that depend on the data. Here every slice is
encoded, and the backward direction of a sequence runs over the present slices in reverse.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import nn

from lumbar.train.model.sequence import SliceSequence

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class MaskedSequence(nn.Module):
    """A trained `SliceSequence` in evaluation mode, one layer and direction after the other."""

    def __init__(self, trained: SliceSequence) -> None:
        super().__init__()
        self.channels = trained.channels
        whole = trained.recurrent
        assert whole is not None
        self.forwards = nn.ModuleList(_one(whole, layer, "") for layer in range(whole.num_layers))
        self.backwards = nn.ModuleList(
            _one(whole, layer, "_reverse")
            for layer in range(whole.num_layers * whole.bidirectional)
        )

    def forward(
        self, features: Float[torch.Tensor, "n d c"], lengths: Int64[torch.Tensor, " n"]
    ) -> Float[torch.Tensor, "n d k"]:
        """Return one vector per slice, 0 behind the first ``lengths``."""
        places = torch.arange(features.shape[1], device=features.device)
        there = (places < lengths[:, None])[..., None].float()
        reverse = (lengths[:, None] - 1 - places).clamp(min=0)[..., None]
        output = features.float()
        for layer, forwards in enumerate(self.forwards):
            directions = [forwards(output)[0]]
            if self.backwards:
                turned = output.gather(1, reverse.expand(-1, -1, output.shape[2]))
                back = self.backwards[layer](turned)[0]
                directions.append(back.gather(1, reverse.expand(-1, -1, back.shape[2])))
            output = torch.cat(directions, dim=2) * there
        return output


def masked(network: NetworkT) -> NetworkT:
    """Return a copy in evaluation mode that is called without ``lengths`` and gives the same."""
    copy = deepcopy(network).eval()
    for module in list(copy.modules()):
        for name, child in module.named_children():
            if isinstance(child, SliceSequence) and child.recurrent is not None:
                setattr(module, name, MaskedSequence(child))
    for weight in copy.parameters():
        weight.requires_grad = False
    return copy


def _one(whole: nn.LSTM | nn.GRU, layer: int, direction: str) -> nn.LSTM | nn.GRU:
    """Return one layer in one direction, as a network of its own."""
    named = {
        f"{name}_l0": getattr(whole, f"{name}_l{layer}{direction}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    one = type(whole)(named["weight_ih_l0"].shape[1], whole.hidden_size, batch_first=True)
    one.load_state_dict(named)
    return one
