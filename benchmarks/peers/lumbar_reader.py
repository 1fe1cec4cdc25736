"""lumbar's own reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lumbar.bench.loaders.dataloader import PREFETCH
from lumbar.cache.store import Cache
from lumbar.train.reader.placement import Tier
from lumbar.train.reader.reader import Reader
from peers.contest import Contest


@contextmanager
def open_batches(
    contest: Contest,
    workers: int,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tier: Tier = "disk",
) -> Iterator[Iterator[torch.Tensor]]:
    """Open the reader with ``workers`` threads as an endless stream of batches."""
    cache = Cache(contest.root)
    with Reader(
        cache,
        contest.plan(cache),
        device=torch.device(device),
        dtype=dtype,
        threads=workers,
        prefetch=PREFETCH,
        tier=tier,
    ) as reader:
        yield images(reader)


def images(reader: Reader) -> Iterator[torch.Tensor]:
    """Yield the images (b, d, 1, h, w) of a reader, epoch after epoch."""
    while True:
        for batch in reader.epoch():
            yield batch.image
