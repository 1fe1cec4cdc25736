"""The reader: executes a plan with DALI and yields batches that lie on the device already."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch.utils.dlpack import from_dlpack

from lumbar.cache.store import Cache
from lumbar.train.graph import DeviceName, build_pipeline
from lumbar.train.plan import Plan, Request


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's samples.

    ``image`` (B, D, 1, H, W) and everything but ``lengths`` and ``requests`` lies on the device.
    ``present`` marks real slices, which come before the filling; ``lengths`` (on the host) counts
    them. ``position`` is each slice's place in its stack, 0 to 1. ``severity`` is 0, 1, 2 or -1
    (unknown) for the 25 cells.
    """

    image: Float[torch.Tensor, "b d 1 h w"]
    present: Bool[torch.Tensor, "b d"]
    position: Float[torch.Tensor, "b d"]
    severity: Int64[torch.Tensor, "b 25"]
    lengths: Int64[torch.Tensor, " b"]
    requests: list[Request]


class Reader:
    """Streams the batches of a plan, epoch after epoch, without a gap between epochs.

    Parameters
    ----------
    cache, plan
        What to read and in which order.
    device
        ``cpu``, or ``cuda`` with or without an index: where warping is done and batches arrive.
    dtype
        Of the images: float32, float16 or bfloat16.
    threads
        DALI's threads.
    prefetch
        Batches in flight.
    epoch
        The first epoch to read.
    """

    def __init__(
        self,
        cache: Cache,
        plan: Plan,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        threads: int = 2,
        prefetch: int = 2,
        epoch: int = 0,
    ) -> None:
        self.cache = cache
        self.plan = plan
        self.device = device
        self.dtype = dtype
        self._in_flight: deque[list[Request]] = deque()
        self._first_epoch = epoch
        table = cache.series
        self._scale = table["scale"].to_numpy()
        self._offset = table["offset"].to_numpy()
        name: DeviceName = "gpu" if device.type == "cuda" else "cpu"
        self._pipeline = build_pipeline(
            self._hand_over,
            stored_dtype=table["dtype"][int(plan.series.row[0])],
            crop=plan.crop,
            device=name,
            device_id=device.index or 0,
            batch=plan.batch,
            threads=threads,
            prefetch=prefetch,
            seed=plan.seed,
            noisy=plan.augment.noise > 0,
        )

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop DALI's threads and let go of its memory."""
        self._pipeline = None
        self._in_flight.clear()

    def epoch(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch."""
        for _ in range(self.plan.steps):
            (images,) = self._pipeline.run(self._stream())
            yield self._batch(images, self._in_flight.popleft())

    def _stream(self) -> torch.cuda.Stream | None:
        """Return the stream that reads the images, by which DALI orders its work and memory."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.current_stream(self.device)

    def _hand_over(self, info: Any) -> tuple[list[np.ndarray], ...]:
        """Give DALI the views and numbers of the next step; called in the training thread."""
        epoch, step = divmod(info.iteration, self.plan.steps)
        requests = self.plan.requests(self._first_epoch + epoch, step)
        self._in_flight.append(requests)
        return (
            [self.cache.volume(request.row) for request in requests],
            [request.slices for request in requests],
            [request.matrix for request in requests],
            [self._numbers(request) for request in requests],
        )

    def _numbers(self, request: Request) -> np.ndarray:
        """Fold storage scale and augmentation into one gain and one offset."""
        scale, offset = self._scale[request.row], self._offset[request.row]
        return np.array(
            [
                scale * request.gain,
                offset * request.gain + request.offset,
                request.noise,
                request.noise_seed,
            ],
            np.float32,
        )

    def _batch(self, images: Any, requests: list[Request]) -> Batch:
        image = from_dlpack(images.as_tensor()).unsqueeze(2)
        present = torch.from_numpy(np.stack([request.slices >= 0 for request in requests]))
        position = torch.from_numpy(np.stack([request.position for request in requests]))
        severity = torch.from_numpy(np.stack([request.severity for request in requests]))
        return Batch(
            image=image.to(self.dtype),
            present=present.to(self.device, non_blocking=True),
            position=position.to(self.device, non_blocking=True),
            severity=severity.to(self.device, torch.int64, non_blocking=True),
            lengths=present.sum(dim=1),
            requests=requests,
        )
