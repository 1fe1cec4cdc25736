"""Copy to a device and index there without making the host wait for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host on a device; one that lies there already as it is.

    A GPU copies pinned memory by itself, in the order of its stream, while the host goes on. Torch
    gives the pinned memory to others only when the copy is done.
    """
    if tensor.device.type == "cpu" and device.type != "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def as_slice(indices: Sequence[int]) -> slice:
    """Return the slice of indices that follow each other.

    On a GPU a list of indices is first copied there, and the host waits; a slice needs no copy.
    """
    first, behind = indices[0], indices[-1] + 1
    assert list(indices) == list(range(first, behind)), f"{indices} do not follow each other"
    return slice(first, behind)
