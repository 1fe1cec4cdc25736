"""Who takes part. What a library needs is imported when it is opened, so that one may be absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import torch

from lumbar.bench.peers.libraries import LIBRARIES
from peers.contest import Contest

Kind = Literal["lumbar", "opencv", "opencv_ring", "library", "dicom"]
Opened = AbstractContextManager[Iterator[torch.Tensor]]

LUMBAR = "lumbar"
THREADS = (2,)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A loader: ``module`` and ``function`` open it, with each number of ``workers`` in turn.

    ``package`` is what it has to be installed from, beside lumbar's own dependencies.
    """

    name: str
    label: str
    kind: Kind
    module: str
    function: str = "open_batches"
    package: str | None = None

    def open(self, contest: Contest, workers: int) -> Opened:
        """Open the loader as an endless stream of batches."""
        found: Callable[..., Opened] = getattr(import_module(self.module), self.function)
        return found(contest.task if self.kind == "library" else contest, workers)


CONTESTANTS = (
    Contestant(LUMBAR, "lumbar's reader", "lumbar", "peers.lumbar_reader"),
    Contestant(
        "opencv",
        "OpenCV in a torch DataLoader, fresh memory",
        "opencv",
        "peers.opencv_loader",
        "open_plain",
    ),
    Contestant(
        "opencv_reused",
        "OpenCV in a torch DataLoader, a ring of shared memory",
        "opencv_ring",
        "peers.opencv_loader",
        "open_reused",
    ),
    Contestant(
        "opencv_fours",
        "OpenCV in a torch DataLoader, a ring, four slices as channels",
        "opencv_ring",
        "peers.opencv_loader",
        "open_fours",
    ),
    *(
        Contestant(name, one.label, "library", one.module, one.function, one.package)
        for name, one in LIBRARIES.items()
    ),
    Contestant("pydicom", "pydicom on the fly in a DataLoader", "dicom", "peers.dicom_loader"),
)
