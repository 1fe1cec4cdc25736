"""Where tensors live."""

from __future__ import annotations

import torch

from lumbar.cache.errors import InputError
from lumbar.train.run.distributed import local_rank
from lumbar.train.telemetry.cpu import local_world_size
from lumbar.train.telemetry.unusable_gpu import UnusableGpu, find_unusable_gpu, sees_gpus


def resolve_device(name: str) -> torch.device:
    """Return the device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; auto takes a GPU if any.

    Without a number each process that ``torchrun`` started takes a GPU of its own.

    Raises
    ------
    InputError
        If the name is none of these, there is no such GPU, or a number would put several processes
        on one GPU.
    """
    available = torch.cuda.device_count() if sees_gpus() else 0
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
    if index and local_world_size() > 1:
        raise InputError(
            what="one GPU for several processes",
            where="--device",
            got=f"{name} in each of {local_world_size()} processes of torchrun",
            expected="a GPU of its own for each process",
            cure="leave the number out: --device cuda; CUDA_VISIBLE_DEVICES chooses among GPUs",
        )
    index = index or str(local_rank() or 0)
    if int(index) >= available:
        raise _no_such_gpu(name, available)
    return torch.device("cuda", int(index))


def find_idle_gpu(name: str) -> UnusableGpu | None:
    """Return why ``auto`` takes the CPU although an NVIDIA GPU is there; None where it does not.

    Only the first of the processes that ``torchrun`` started on a machine returns it.
    """
    if name != "auto" or sees_gpus() or local_rank():
        return None
    return find_unusable_gpu()


def _no_such_gpu(name: str, available: int) -> InputError:
    unusable = None if available else find_unusable_gpu()
    if unusable is not None:
        return InputError(
            what=unusable.what,
            where=f"--device {name}",
            got=unusable.got,
            expected=unusable.expected,
            cure=unusable.cure,
        )
    return InputError(
        what="no such GPU",
        where="--device",
        got=name,
        expected=f"cuda:0 to cuda:{available - 1}" if available else "cpu: torch sees no GPU",
        cure="use --device cpu, or install a driver and a CUDA build of torch",
    )
