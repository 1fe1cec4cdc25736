"""The samples of a plan as a torch data set, for training loops outside of lumbar.

`lumbar.train.reader.reader.Reader` is faster and can render on a GPU; this is for a `DataLoader`,
Lightning or MONAI. Its pixels are the bytes of a reader on the CPU, and within 0.001 of those that
are rendered on a GPU.
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
"""One sample; torch's own collation makes batches of them.

``image`` (D, 1, H, W), ``present`` and ``position`` (D) and ``series_type`` (), of studies with a
first axis for series; ``target`` (25, 3), ``known`` (25), ``level`` () and ``study_id``. See
`lumbar.train.reader.batch.Batch`.
"""

_OF_SLICES = {"image": -4, "present": -1, "position": -1}
"""The axis of slices of each tensor that has one."""


class PlanDataset(Dataset[Sample]):
    """The samples of one epoch of a plan, in the plan's order.

    It has the whole epoch, whatever the plan's rank: several ranks need a sampler, such as torch's
    `DistributedSampler` without shuffling. The plan shuffles and augments, except for mixup and
    cutmix, which need batches; leave the `DataLoader`'s shuffling off. Each worker process opens
    the cache by itself.

    Parameters
    ----------
    cache, plan
        What to read and in which order.
    dtype
        Of the images: float32, float16 or bfloat16.

    Raises
    ------
    InputError
        If the plan is of another cache, or the type is none of these.
    """

    def __init__(self, cache: Cache, plan: Plan, *, dtype: torch.dtype = torch.float32) -> None:
        check_dtype(dtype)
        check_samples(cache, plan.samples)
        self._root: Path = cache.root.absolute()
        self._plan = plan
        self._dtype = dtype
        # In shared memory, so that persistent workers see the next epoch too.
        self._epoch: torch.Tensor = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, and with it the order, the slices and the augmentation."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self._plan.epoch_size

    def __getitem__(self, place: int) -> Sample:
        """Return the sample at a place of the epoch; raise IndexError behind its end."""
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
        """Leave out the open cache, whose memory maps belong to this process."""
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}

    @cached_property
    def _opened(self) -> Cache:
        """The cache, opened once per process."""
        return Cache(self._root)

    def _views(self, request: Request) -> dict[str, torch.Tensor]:
        """Return the tensors of the views; of a single series without the axis of series."""
        views = request.views
        tensors = {
            "image": torch.stack([self._render(view) for view in views]),
            "present": torch.from_numpy(np.stack([view.slices != NO_SLICE for view in views])),
            "position": torch.from_numpy(np.stack([view.position for view in views])),
            "series_type": torch.from_numpy(self._plan.samples.series_type[request.index]),
        }
        return tensors if len(views) > 1 else {key: value[0] for key, value in tensors.items()}

    def _render(self, view: View) -> torch.Tensor:
        """Render one view (d, 1, h, w)."""
        cache, crop = self._opened, self._plan.crop
        render, bits = renderer_of(self._dtype, light=self._plan.augment.is_light)
        image = np.empty((len(view.slices), crop.height, crop.width), bits)
        picked, places = compacted(view.slices)
        render(
            image,
            cache.slices(view.row, picked),
            places,
            view.matrix,
            for_stored(view.numbers, *cache.scale_and_offset(view.row)),
            view.key,
        )
        return as_rendered(torch.from_numpy(image), self._dtype).unsqueeze(1)


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Make a batch, padding samples with fewer slices (for ``crop.pick = "all"``)."""
    deepest = max(_tensor(sample, "present").shape[-1] for sample in samples)
    padded = [
        sample
        | {name: _padded(_tensor(sample, name), axis, deepest) for name, axis in _OF_SLICES.items()}
        for sample in samples
    ]
    batch: dict[str, Any] = torch.utils.data.default_collate(padded)
    return batch


def _tensor(sample: Sample, name: str) -> torch.Tensor:
    value = sample[name]
    assert isinstance(value, torch.Tensor)
    return value


def _padded(tensor: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """Return a tensor, padded with zeros to a length along one axis."""
    return pad(tensor, [0, 0] * (-axis - 1) + [0, length - tensor.shape[axis]])
