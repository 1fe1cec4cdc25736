"""pydicom on the fly: every sample decodes its series anew, then OpenCV crops it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from lumbar.bench.loaders.dataloader import EndlessRequests, open_dataloader, stack_padded
from lumbar.bench.loaders.opencv_crops import DecodedCrops, LoadedCrops, start_worker, volume_files
from lumbar.cache.store import Cache
from peers.contest import Contest


def collate(samples: list[LoadedCrops], slices: int) -> torch.Tensor:
    """Put a step's images together."""
    return stack_padded([image[0] for image, _ in samples], slices)


@contextmanager
def open_batches(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open the loader as an endless stream of batches."""
    cache = Cache(contest.root)
    plan = contest.plan(cache)
    assert contest.decode is not None
    with open_dataloader(
        DecodedCrops(volume_files(cache, contest.rows), contest.crop, contest.decode),
        workers,
        start_worker=start_worker,
        batch_sampler=EndlessRequests(plan),
        collate_fn=partial(collate, slices=contest.crop.slices),
    ) as batches:
        yield batches
