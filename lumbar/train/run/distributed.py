"""The processes of a run: one, or several that ``torchrun`` started, each with its device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from lumbar.cache.errors import LumbarError
from lumbar.train.run.allocator import let_segments_grow

Value = TypeVar("Value")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another, as for the first one to load what it trains on."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of a run's processes this is; alone, nothing is sent anywhere."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes; no gradient flows through."""
        if self.world == 1:
            return tensor.detach()
        total = tensor.detach().clone()
        distributed.all_reduce(total)
        return total

    def gather(self, value: Value) -> list[Value]:
        """Return every process's value, in the order of ranks, to all of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give all processes the first one's values, in place."""
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started with this one; alone without it.

    They communicate by NCCL on GPUs, else by Gloo. Call it before anything uses a GPU: it also
    lets torch's memory segments grow.

    Raises
    ------
    LumbarError
        If another process is gone while this one waits for it.
    """
    let_segments_grow(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    except RuntimeError as error:
        # Gloo has no error of its own for a connection that the other side has closed.
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise LumbarError(
            what="another process of the run is gone",
            got=str(error).strip().splitlines()[0],
            cure="see its message; then resume with --resume RUN",
        ) from error
    finally:
        distributed.destroy_process_group()


def local_rank() -> int | None:
    """Return this process's number on its machine, or None if ``torchrun`` did not start it."""
    rank = os.environ.get("LOCAL_RANK")
    return None if rank is None else int(rank)
