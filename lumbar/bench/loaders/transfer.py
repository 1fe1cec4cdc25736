"""The bytes that go from the host to the device, computed from shapes."""

from __future__ import annotations

import numpy as np

from lumbar.bench.loaders.loaders import LoaderInput, LoaderSpec


def bytes_to_device(source: LoaderInput, spec: LoaderSpec) -> int | None:
    """Return the voxel bytes per volume that a loader copies to the device; None on a CPU.

    A DataLoader copies float32 crops. lumbar's reader copies finished crops where it renders on
    the CPU, and otherwise the stored slices of tier ``disk``. Those of tier ``device`` lie there.
    """
    if source.device.type == "cpu":
        return None
    crop, slices = source.plan.crop, source.slices
    if spec.kind != "lumbar_reader":
        return 4 * slices * crop.height * crop.width
    if spec.draw == "cpu":
        return source.dtype.itemsize * slices * crop.height * crop.width
    if spec.tier == "device":
        return 0
    table = source.cache.series[source.plan.samples.rows]
    mean_pixels = float(table.select("height", "width").to_numpy().prod(axis=1).mean())
    itemsize: int = np.dtype(table["dtype"][0]).itemsize
    return round(itemsize * slices * mean_pixels)
