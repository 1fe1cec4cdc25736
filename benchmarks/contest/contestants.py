"""Who takes part. What a package needs is imported when it is opened, so that one may be absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Literal

import torch

from contest.contest import Contest
from lumbar.bench.loaders import opencv_crops
from lumbar.bench.loaders.loaders import LoaderKind, LoaderSpec, open_loader
from lumbar.train.reader.placement import Draw, Tier

ContestantKind = Literal["lumbar", "opencv", "opencv_ring", "library", "dicom"]
OpenContestant = Callable[[Contest, int], AbstractContextManager[Iterator[torch.Tensor]]]
"""Opens a loader with so many workers as an endless stream of images (b, d, 1, h, w)."""

LUMBAR = "lumbar"
THREADS = (2,)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A loader, opened with each number of workers in turn.

    Its worker processes import ``module``. ``package`` is what it has to be installed from, beside
    lumbar's own dependencies.
    """

    name: str
    label: str
    kind: ContestantKind
    open: OpenContestant
    module: str = opencv_crops.__name__
    package: str | None = None


@contextmanager
def open_own(
    contest: Contest, workers: int, *, kind: LoaderKind, tier: Tier = "disk", draw: Draw = "cpu"
) -> Iterator[Iterator[torch.Tensor]]:
    """Open one of `lumbar bench`'s own loaders."""
    with open_loader(contest.source(), LoaderSpec(kind, workers, tier, draw)) as batches:
        yield (batch.image for batch in batches)


def imported(module: str, function: str) -> OpenContestant:
    """Return what opens a loader of a module that is imported then."""

    def opened(contest: Contest, workers: int) -> AbstractContextManager[Iterator[torch.Tensor]]:
        found: OpenContestant = getattr(import_module(module), function)
        return found(contest, workers)

    return opened


def of_library(name: str, label: str, package: str, module: str, function: str) -> Contestant:
    """Return a library's contestant."""
    return Contestant(name, label, "library", imported(module, function), module, package)


def in_ring(name: str, label: str, function: str) -> Contestant:
    """Return a DataLoader whose batches lie in a ring of shared memory."""
    module = "peers.opencv_ring"
    return Contestant(name, label, "opencv_ring", imported(module, function), module)


CONTESTANTS = (
    Contestant(LUMBAR, "lumbar's reader", "lumbar", partial(open_own, kind="lumbar_reader")),
    Contestant(
        "opencv",
        "OpenCV in a torch DataLoader, fresh memory",
        "opencv",
        partial(open_own, kind="cache_dataloader"),
    ),
    in_ring(
        "opencv_reused", "OpenCV in a torch DataLoader, a ring of shared memory", "open_reused"
    ),
    in_ring(
        "opencv_fours",
        "OpenCV in a torch DataLoader, a ring, four slices as channels",
        "open_fours",
    ),
    of_library(
        "monai_cache", "MONAI CacheDataset", "monai", "peers.monai_loader", "open_cache_dataset"
    ),
    of_library(
        "monai_persistent",
        "MONAI PersistentDataset",
        "monai",
        "peers.monai_loader",
        "open_persistent_dataset",
    ),
    of_library(
        "torchio", "TorchIO SubjectsDataset", "torchio", "peers.torchio_loader", "open_batches"
    ),
    of_library(
        "batchgeneratorsv2",
        "batchgeneratorsv2 in a torch DataLoader",
        "batchgeneratorsv2",
        "peers.batchgenerators_loader",
        "open_batches",
    ),
    Contestant(
        "pydicom",
        "pydicom on the fly in a DataLoader",
        "dicom",
        partial(open_own, kind="dicom_dataloader"),
    ),
)
