"""Where tensors live."""

from __future__ import annotations

import torch

from lumbar.cache.errors import InputError
from lumbar.train.ranks import local_rank


def resolve_device(name: str) -> torch.device:
    """Return the device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; auto takes a GPU if any.

    Without a number each process that ``torchrun`` started takes a GPU of its own.

    Raises
    ------
    InputError
        If the name is none of these, or there is no such GPU.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise InputError(
            what="unknown device",
            where="--device",
            got=name,
            expected="auto, cpu, cuda or cuda:N",
            cure="leave it out to take a GPU if there is one",
        )
    index = index or str(local_rank() or 0)
    if int(index) >= available:
        raise InputError(
            what="no such GPU",
            where="--device",
            got=name,
            expected=f"cuda:0 to cuda:{available - 1}" if available else "cpu: torch sees no GPU",
            cure="use --device cpu, or install a driver and a CUDA build of torch",
        )
    return torch.device("cuda", int(index))
