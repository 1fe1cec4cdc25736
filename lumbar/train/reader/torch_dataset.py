"""The samples of a plan as a plain torch data set, for people who bring their own loop.

`lumbar.train.reader.reader.Reader` is faster and draws on a GPU; this is for a `DataLoader`,
Lightning or MONAI. It draws what a reader on the CPU draws, byte for byte; what a reader on a GPU
draws is the same within 0.001.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from torch.utils.data import Dataset

from lumbar.cache.store import Cache
from lumbar.train.plan.augment import for_stored
from lumbar.train.plan.plan import Plan, Request
from lumbar.train.plan.slices import NO_SLICE, compacted
from lumbar.train.plan.view import View
from lumbar.train.reader.batch import one_hot
from lumbar.train.reader.checks import check_dtype, check_samples
from lumbar.train.reader.dali_numba import as_rendered, renderer_of

Sample = dict[str, torch.Tensor | str]
"""What one place of an epoch gives; torch's own collation makes batches of it.

``image`` (D, 1, H, W), ``present`` and ``position`` (D) and ``series_type`` (), with an axis for
the series of a study in front where samples are studies; ``target`` (25, 3), ``known`` (25),
``level`` () and ``study_id``. The meaning is that of `lumbar.train.reader.batch.Batch`.
"""

_OF_SLICES = {"image": -4, "present": -1, "position": -1}
"""What has the slices of a sample along an axis, and which."""


class PlanDataset(Dataset[Sample]):
    """The samples of one epoch of a plan, by their place in its order, whatever its rank and world.

    It has the whole epoch: several ranks share one by a sampler, such as torch's
    `DistributedSampler` without shuffling.
    Each has its own augmentation, but for mixup and cutmix, which belong to batches. Shuffling is
    the plan's: leave the `DataLoader`'s off. It may be sent to worker processes however they start;
    each opens the cache for itself.

    Parameters
    ----------
    cache, plan
        What to read and in which order.
    dtype
        Of the images: float32, float16 or bfloat16.

    Raises
    ------
    InputError
        If the plan is of another cache, or the type another.
    """

    def __init__(self, cache: Cache, plan: Plan, *, dtype: torch.dtype = torch.float32) -> None:
        check_dtype(dtype)
        check_samples(cache, plan.samples)
        self._root: Path = cache.root.absolute()
        self._plan = plan
        self._dtype = dtype
        # In shared memory, so that workers that stay see the next epoch too.
        self._epoch: torch.Tensor = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch: another order, other slices and augmentation."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self._plan.epoch_size

    def __getitem__(self, place: int) -> Sample:
        """Return the sample at a place of the epoch; raise IndexError where there is none."""
        if not 0 <= place < len(self):
            message = f"place {place} of an epoch of {len(self)} samples"
            raise IndexError(message)
        request = self._plan.request(int(self._epoch), place)
        samples = self._plan.samples
        target = torch.from_numpy(one_hot([request.severity])[0])
        return {
            **self._views(request),
            "target": target,
            "known": target.sum(dim=1) > 0,
            "level": torch.tensor(int(samples.level[request.index])),
            "study_id": samples.study_id[request.index],
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open cache behind, whose memory maps are this process's."""
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}

    @cached_property
    def _opened(self) -> Cache:
        """The cache, opened once a process."""
        return Cache(self._root)

    def _views(self, request: Request) -> dict[str, torch.Tensor]:
        """Return what each view has; of a single series without the axis of series."""
        views = request.views
        tensors = {
            "image": torch.stack([self._draw(view) for view in views]),
            "present": torch.from_numpy(np.stack([view.slices != NO_SLICE for view in views])),
            "position": torch.from_numpy(np.stack([view.position for view in views])),
            "series_type": torch.from_numpy(self._plan.samples.series_type[request.index]),
        }
        return tensors if len(views) > 1 else {key: value[0] for key, value in tensors.items()}

    def _draw(self, view: View) -> torch.Tensor:
        """Draw one view (d, 1, h, w)."""
        cache, crop = self._opened, self._plan.crop
        draw, bits = renderer_of(self._dtype, light=self._plan.augment.is_light)
        image = np.empty((len(view.slices), crop.height, crop.width), bits)
        picked, places = compacted(view.slices)
        draw(
            image,
            cache.slices(view.row, picked),
            places,
            view.matrix,
            for_stored(view.numbers, *cache.scale_and_offset(view.row)),
            view.key,
        )
        return as_rendered(torch.from_numpy(image), self._dtype).unsqueeze(1)


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Make a batch of samples with different numbers of slices, filling up the shallower ones.

    For ``crop.pick = "all"``; where all are equally deep torch's own collation does the same.
    """
    deepest = max(_tensor(sample, "present").shape[-1] for sample in samples)
    filled = [
        sample
        | {name: _filled(_tensor(sample, name), axis, deepest) for name, axis in _OF_SLICES.items()}
        for sample in samples
    ]
    batch: dict[str, Any] = torch.utils.data.default_collate(filled)
    return batch


def _tensor(sample: Sample, name: str) -> torch.Tensor:
    value = sample[name]
    assert isinstance(value, torch.Tensor)
    return value


def _filled(tensor: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """Return a tensor with zeros behind it along one axis."""
    return pad(tensor, [0, 0] * (-axis - 1) + [0, length - tensor.shape[axis]])
