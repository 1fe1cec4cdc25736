"""How torch takes memory from a GPU."""

from __future__ import annotations

import os
import platform

import torch

SETTING = "PYTORCH_CUDA_ALLOC_CONF"
"""The name that every torch reads; from 2.9 to 2.11 the newer one does nothing on CUDA."""
NEWER_SETTING = "PYTORCH_ALLOC_CONF"
GROWING = "expandable_segments:True"


def let_segments_grow(device: torch.device) -> None:
    """Have torch's segments of GPU memory grow, where the user has not set anything else.

    Steps differ in their numbers of slices, and thus in the sizes of what is kept. In segments of
    fixed sizes each new one may leave a gap, until memory is full of gaps. Has no effect once the
    process has used the GPU. Not in WSL, where drivers fail at it (pytorch/pytorch issue 192330).
    """
    set_by_user = SETTING in os.environ or NEWER_SETTING in os.environ
    if device.type == "cuda" and not set_by_user and "microsoft" not in platform.release().lower():
        os.environ[SETTING] = GROWING
