"""What people use instead, one series at a time; each returns the number of files that it read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom

PERCENTILES = (0.5, 99.5)
SIDE = 384
"""What lumbar stores by default."""
PIXEL_MM = (4.4, 0.7, 0.7)
"""About as many voxels as lumbar stores of the generated sagittal series, right to left first."""


@dataclass(frozen=True, slots=True)
class PeerTask:
    """A series' folder, and where its result goes."""

    folder: Path
    out: Path


def dcm2niix(task: PeerTask) -> int:
    """Convert to uncompressed NIfTI with dcm2niix: stored values, native pixels, no percentile."""
    program = Path(sys.executable).with_name("dcm2niix")
    subprocess.run(
        [program, "-z", "n", "-b", "n", "-f", task.out.name, "-o", task.out.parent, task.folder],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return len(list(task.folder.iterdir()))


def simpleitk(task: PeerTask) -> int:
    """Read with SimpleITK's series reader into an array: native pixels, nothing is stored."""
    import SimpleITK  # noqa: PLC0415

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    reader = SimpleITK.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(task.folder))
    reader.SetFileNames(names)
    SimpleITK.GetArrayFromImage(reader.Execute())
    return len(names)


def monai(task: PeerTask) -> int:
    """Load, orient, resample, scale by percentiles, and keep the result in a PersistentDataset."""
    from monai.data import PersistentDataset  # noqa: PLC0415

    task.out.mkdir(parents=True)
    stored = PersistentDataset([str(task.folder)], _monai_steps(), str(task.out))
    stored[0]
    return len(list(task.folder.iterdir()))


@cache
def _monai_steps() -> Any:
    import torch  # noqa: PLC0415
    from monai.transforms import (  # noqa: PLC0415
        Compose,
        LoadImage,
        Orientation,
        ScaleIntensityRangePercentiles,
        Spacing,
    )

    torch.set_num_threads(1)
    return Compose(
        [
            LoadImage(reader="PydicomReader", image_only=True, ensure_channel_first=True),
            Orientation(axcodes="RAS", labels=None),
            Spacing(pixdim=PIXEL_MM),
            ScaleIntensityRangePercentiles(*PERCENTILES, b_min=0, b_max=1, clip=True),
        ]
    )


def notebook(task: PeerTask) -> int:
    """Do what notebooks do: pydicom, sorted by position, cv2.resize, percentiles, np.save."""
    datasets = [pydicom.dcmread(path) for path in task.folder.iterdir()]
    datasets.sort(key=lambda dataset: float(dataset.ImagePositionPatient[0]))
    volume_dhw = np.stack(
        [cv2.resize(dataset.pixel_array.astype(np.float32), (SIDE, SIDE)) for dataset in datasets]
    )
    low, high = np.percentile(volume_dhw, PERCENTILES)
    scaled = np.clip((volume_dhw - low) / (high - low), 0, 1)
    np.save(task.out.with_suffix(".npy"), (scaled * 255).astype(np.uint8))
    return len(datasets)


PEERS = {"dcm2niix": dcm2niix, "SimpleITK": simpleitk, "monai": monai, "notebook": notebook}
"""By the name of the package to be there; a notebook needs none of its own."""
