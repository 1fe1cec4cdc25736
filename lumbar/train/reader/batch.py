"""A batch: the samples of a step as tensors of pixels, masks and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from lumbar.cache.names import N_SEVERITIES
from lumbar.train.device_tensors import to_device
from lumbar.train.plan.mixup import Mix
from lumbar.train.plan.plan import Request
from lumbar.train.plan.samples import Samples
from lumbar.train.plan.slices import NO_SLICE


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's samples: ``n`` is (B,) for series and discs, (B, S) for studies.

    All but ``lengths``, ``series_type`` and ``requests`` lie on the device. ``present`` marks real
    slices, which come before the padding; an absent series of a study has none. ``lengths`` counts
    them. ``position`` is each slice's place in its stack, 0 to 1. ``series_type`` are indices into
    `lumbar.cache.names.SERIES_TYPES`, ``level`` is that of a disc or -1.

    ``target`` is the one-hot severity of the 25 cells: a known cell sums to one, an unknown one is
    0, 0, 0; mixup and cutmix mix the targets of two samples. ``known`` marks the known cells.
    """

    image: Float[torch.Tensor, "*n d 1 h w"]
    present: Bool[torch.Tensor, "*n d"]
    position: Float[torch.Tensor, "*n d"]
    lengths: Int64[torch.Tensor, "*n"]
    series_type: Int64[torch.Tensor, "*n"]
    level: Int64[torch.Tensor, " b"]
    target: Float[torch.Tensor, "b 25 3"]
    known: Bool[torch.Tensor, "b 25"]
    requests: list[Request]

    def parts(self, n: int) -> list[Batch]:
        """Return the batch in ``n`` parts whose sizes differ by one at most.

        A batch of fewer samples has one part per sample. The parts are views, not copies.
        """
        n = min(n, len(self.requests))
        if n == 1:
            return [self]
        names = [f.name for f in fields(self) if f.name != "requests"]
        chunks = {name: getattr(self, name).tensor_split(n) for name in names}
        starts = np.cumsum([0, *(len(part) for part in chunks["level"])])
        return [
            Batch(
                **{name: parts[number] for name, parts in chunks.items()},
                requests=self.requests[start:stop],
            )
            for number, (start, stop) in enumerate(pairwise(starts))
        ]


def make_batch(
    image: Float[torch.Tensor, "v d h w"],
    requests: list[Request],
    samples: Samples,
    *,
    device: torch.device,
    mix: Mix | None = None,
) -> Batch:
    """Make a batch of some requests; ``image`` has their views one after the other.

    Only a batch of studies has an axis for series.
    """
    index = [request.index for request in requests]
    n = (len(requests), samples.row.shape[1]) if samples.whole_studies else (len(requests),)
    views = [view for request in requests for view in request.views]
    present = torch.from_numpy(np.stack([view.slices != NO_SLICE for view in views]))
    position = torch.from_numpy(np.stack([view.position for view in views]))
    series_type = torch.from_numpy(samples.series_type[index])
    level = torch.from_numpy(samples.level[index].astype(np.int64))
    target = torch.from_numpy(one_hot([request.severity for request in requests]))
    batch = Batch(
        image=to_device(image, device).reshape(*n, image.shape[1], 1, *image.shape[2:]),
        present=to_device(present.reshape(*n, -1), device),
        position=to_device(position.reshape(*n, -1), device),
        lengths=present.sum(dim=1).reshape(n),
        series_type=series_type.reshape(n),
        level=to_device(level, device),
        target=to_device(target, device),
        known=to_device(target.sum(dim=2) > 0, device),
        requests=requests,
    )
    return batch if mix is None else mixed(batch, mix)


def one_hot(severities: Sequence[np.ndarray]) -> np.ndarray:
    """Return severities (b, 25) as float32 targets (b, 25, 3); an unknown cell is 0, 0, 0."""
    severity = np.stack(severities)
    target: np.ndarray = (severity[..., None] == np.arange(N_SEVERITIES)).astype(np.float32)
    return target


def mixed(batch: Batch, mix: Mix) -> Batch:
    """Return the batch with each sample mixed with its partner, pixels and targets alike.

    A slice is present where either has it; where only the partner has it, its position is taken.
    """
    image = batch.image
    partner = torch.from_numpy(mix.partner)
    there = to_device(partner, image.device)
    share = to_device(torch.from_numpy(mix.share), image.device)
    own = share.view(-1, *[1] * (image.ndim - 1)).to(image.dtype)
    if mix.boxes is None:
        image = torch.lerp(image[there], image, own)
    else:
        image = image.clone()
        for sample, other, (h0, w0, h1, w1) in zip(
            range(len(image)), mix.partner.tolist(), mix.boxes, strict=True
        ):
            image[sample, ..., h0:h1, w0:w1] = batch.image[other, ..., h0:h1, w0:w1]
    target = torch.lerp(batch.target[there], batch.target, share.view(-1, 1, 1))
    return replace(
        batch,
        image=image,
        present=batch.present | batch.present[there],
        position=torch.where(batch.present, batch.position, batch.position[there]),
        lengths=torch.maximum(batch.lengths, batch.lengths[partner]),
        target=target,
        known=target.sum(dim=2) > 0,
    )
