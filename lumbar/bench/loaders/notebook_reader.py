"""The usual notebook loop, kept as the baseline: every sample decodes its series anew.

The benchmark compares lumbar with it; nothing else uses it. No canonical orientation, no checks:
read, sort, rescale, stretch by percentiles, resize.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from jaxtyping import Float32

from lumbar.cache.errors import InputError
from lumbar.pipeline.source.layout import Split, find_layout
from lumbar.pipeline.source.scan import Identified, identify, walk

PERCENTILES = (0.5, 99.5)

_log = logging.getLogger(__name__)

SeriesKey = tuple[str, str]
"""Study id and series id, as in a cache."""


@dataclass(frozen=True, slots=True)
class NotebookReader:
    """Decodes series from their files; picklable, for DataLoader workers."""

    files: dict[SeriesKey, tuple[Path, ...]]

    @classmethod
    def find(
        cls, src: Path, wanted: Collection[SeriesKey], split: Split | None = None
    ) -> NotebookReader:
        """Find the files of some series in a source, as `lumbar preprocess` would.

        Raises
        ------
        MissingError, InputError
            If the source is no folder or lacks one of the series.
        """
        layout = find_layout(src, split)
        if layout.split is None:
            files = _files_by_uid(layout.images)
        else:
            files = {key: _files_in(layout.images / key[0] / key[1]) for key in wanted}
        lacking = sorted(key for key in wanted if not files.get(key))
        if lacking:
            raise InputError(
                what="the source lacks series of the cache",
                where=src,
                got=f"{len(lacking)} of {len(wanted)} absent, the first: {'/'.join(lacking[0])}",
                expected="the folder that the cache was made from",
                cure="check --src, or leave it out to skip the DICOM baseline",
            )
        return cls({key: files[key] for key in wanted})

    def __call__(
        self, study_id: str, series_id: str, size: tuple[int, int]
    ) -> Float32[np.ndarray, "d h w"]:
        """Decode a series to values from 0 to 1, each slice ``size`` (height, width)."""
        slices = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of each oddity of each file
            for path in self.files[study_id, series_id]:
                try:
                    dataset = pydicom.dcmread(path)
                    slices.append((_place(dataset), _fit(_pixels(dataset), size)))
                except Exception as error:
                    # The edge of one file: one damaged image must not end a benchmark.
                    _log.debug("left out %s: %r", path, error)
        if not slices:
            raise InputError(
                what="no image of the series can be read", where=f"{study_id}/{series_id}"
            )
        slices.sort(key=lambda one: one[0])
        volume_dhw = np.stack([picture for _, picture in slices])
        low, high = np.percentile(volume_dhw, PERCENTILES)
        stretched = (volume_dhw - np.float32(low)) / np.float32(max(high - low, 1e-6))
        return np.clip(stretched, 0, 1, out=stretched)


def _files_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("*.dcm")))


def _files_by_uid(root: Path) -> dict[SeriesKey, tuple[Path, ...]]:
    """Return the files of every series of a bare tree, by the UIDs in their headers."""
    paths = [path for path in walk(root, skip=(root / "cache").resolve()) if isinstance(path, str)]
    found: dict[SeriesKey, list[Path]] = {}
    for one in identify(root, paths):
        if isinstance(one, Identified):
            found.setdefault((one.study_id, one.series_id), []).append(root / one.path)
    return {key: tuple(files) for key, files in found.items()}


def _pixels(dataset: pydicom.Dataset) -> Any:
    pixels = dataset.pixel_array.astype(np.float32)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = pixels.max() - pixels
    return pixels * float(dataset.get("RescaleSlope", 1)) + float(
        dataset.get("RescaleIntercept", 0)
    )


def _place(dataset: pydicom.Dataset) -> float:
    """Return the position along the patient axis that is nearest to the normal."""
    along_row, along_column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    axis = int(np.abs(np.cross(along_row, along_column)).argmax())
    position = float(dataset.ImagePositionPatient[axis])
    return -position if axis == 2 else position


def _fit(pixels: Any, size: tuple[int, int]) -> Any:
    """Scale a picture to fit a canvas and pad it evenly, as the cache does."""
    rows, columns = pixels.shape
    zoom = min(size[0] / rows, size[1] / columns)
    height, width = max(1, round(rows * zoom)), max(1, round(columns * zoom))
    interpolation = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    canvas = np.zeros(size, np.float32)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(
        pixels, (width, height), interpolation=interpolation
    )
    return canvas
