"""What all contestants do: the same series, the same box, the same augmentation, the same batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lumbar.bench.loaders.loaders import LoaderInput
from lumbar.bench.loaders.notebook_reader import NotebookReader
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Contest:
    """The task; it is handed to worker processes and to fresh ones, so it can be pickled.

    ``decode`` reads the series from its DICOM files, where there are any. Batches go to ``device``
    as ``dtype``.
    """

    root: Path
    rows: list[int]
    decode: NotebookReader | None = None
    crop: CropConfig = field(
        default_factory=lambda: CropConfig(slices=20, height=256, width=256, pixel_mm=1.0)
    )
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            rotation_degrees=8, scale=0.1, shift_mm=8, brightness=0.1, contrast=0.2, noise=0
        )
    )
    batch: int = 8
    seed: int = 0
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    def of_rows(self, rows: list[int]) -> Contest:
        """Return the contest over other rows."""
        return replace(self, rows=rows)

    def plan(self, cache: Cache) -> Plan:
        """Return the plan whose requests lumbar, OpenCV and the DICOM reader execute."""
        return Plan(
            Samples.of_series(cache, self.rows),
            self.crop,
            self.augment,
            batch=self.batch,
            shuffle=True,
            seed=self.seed,
        )

    def source(self) -> LoaderInput:
        """Return what `lumbar bench`'s own loaders read."""
        cache = Cache(self.root)
        return LoaderInput(cache, self.plan(cache), self.device, self.dtype, self.decode)
