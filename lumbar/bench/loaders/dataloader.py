"""torch's DataLoader as every baseline opens it: order of steps, memory and worker processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch.utils.data import DataLoader, get_worker_info

PREFETCH = 2
"""Batches in flight per worker, and of lumbar's reader: the default of both."""


@contextmanager
def open_dataloader(
    dataset: Any,
    workers: int,
    *,
    start_worker: Callable[[int], None],
    loader: type[DataLoader[Any]] = DataLoader,
    **options: Any,
) -> Iterator[Iterator[Any]]:
    """Open a DataLoader as an endless stream of batches; its processes end with it.

    Workers are forked from a server that has run nothing: forking this process may deadlock, for
    DALI, OpenCV and torch run threads in it. They live as long as the stream.
    """
    with warnings.catch_warnings():
        # More workers than cores are tried on purpose.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        opened = loader(
            dataset,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            multiprocessing_context="forkserver" if workers else None,
            worker_init_fn=start_worker,
            **options,
        )
        # The loader's iterator lives in the generator alone, so closing that ends the workers.
        stream = (batch for batch in opened)
    with closing(stream) as batches:
        yield batches


def start_worker_server(modules: Sequence[str]) -> None:
    """Start the process that workers are forked from, so that its imports are not measured.

    A server that runs already keeps the modules that it has.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted(set(modules)))
    first = context.Process(target=os.getpid)
    first.start()
    first.join()


@dataclass(frozen=True, slots=True)
class Steps:
    """The (epoch, step) of a plan, epoch after epoch, as a DataLoader's sampler."""

    steps: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = 0
        while True:
            yield from ((epoch, step) for step in range(self.steps))
            epoch += 1


def empty_batch(shape: tuple[int, ...]) -> Float32[torch.Tensor, "..."]:
    """Return uninitialised memory; in a worker process shared, so that none copies it.

    It is what `torch.utils.data.default_collate` does.
    """
    if get_worker_info() is None:
        return torch.empty(shape)
    empty: Any = torch.empty(0)
    shared: torch.Tensor = empty.new(empty._typed_storage()._new_shared(math.prod(shape)))
    return shared.view(shape)
