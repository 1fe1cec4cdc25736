"""Which libraries there are. Each is imported when it is opened, so that it may be absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import torch

from lumbar.bench.peers.task import Task

LibraryName = Literal["monai_cache", "monai_persistent", "torchio", "batchgeneratorsv2"]

OpenLibrary = Callable[..., AbstractContextManager[Iterator[torch.Tensor]]]


@dataclass(frozen=True, slots=True)
class Library:
    """A library's loader: ``function`` of ``module`` opens it, ``package`` is what it needs.

    ``in_memory`` says that all of its volumes lie in memory, for workers in shared memory.
    """

    label: str
    package: str
    module: str
    function: str
    in_memory: bool

    def open(
        self, task: Task, workers: int, *, pin_memory: bool = False
    ) -> AbstractContextManager[Iterator[torch.Tensor]]:
        """Open the loader as an endless stream of images (b, d, 1, h, w) float32."""
        opened: OpenLibrary = getattr(import_module(self.module), self.function)
        return opened(task, workers, pin_memory=pin_memory)


LIBRARIES: dict[LibraryName, Library] = {
    "monai_cache": Library(
        "MONAI CacheDataset",
        "monai",
        "lumbar.bench.peers.monai_loader",
        "open_cache_dataset",
        in_memory=True,
    ),
    "monai_persistent": Library(
        "MONAI PersistentDataset",
        "monai",
        "lumbar.bench.peers.monai_loader",
        "open_persistent_dataset",
        in_memory=False,
    ),
    "torchio": Library(
        "TorchIO SubjectsDataset",
        "torchio",
        "lumbar.bench.peers.torchio_loader",
        "open_batches",
        in_memory=True,
    ),
    "batchgeneratorsv2": Library(
        "batchgeneratorsv2 in a torch DataLoader",
        "batchgeneratorsv2",
        "lumbar.bench.peers.batchgenerators_loader",
        "open_batches",
        in_memory=True,
    ),
}
