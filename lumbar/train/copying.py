"""From the host to a device, without a wait for the work that the device still has to do."""

from __future__ import annotations

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host on a device; one that lies there already as it is.

    A GPU copies pinned memory by itself, in the order of its stream, while the host goes on. Torch
    gives the pinned memory to others only when the copy is done.
    """
    if tensor.device.type == "cpu" and device.type != "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
