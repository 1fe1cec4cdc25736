"""Copy to a device and index there without making the host wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device; one that lies there already is returned as it is.

    A GPU copies pinned memory asynchronously, in the order of its stream. Torch does not reuse the
    pinned memory before the copy is done.
    """
    if tensor.device.type == "cpu" and device.type != "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def as_slice(indices: Sequence[int]) -> slice:
    """Return consecutive indices as a slice.

    A list of indices would be copied to the GPU while the host waits; a slice needs no copy.
    """
    first, behind = indices[0], indices[-1] + 1
    assert list(indices) == list(range(first, behind)), f"{indices} do not follow each other"
    return slice(first, behind)
