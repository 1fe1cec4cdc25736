"""The DALI pipeline: one definition for CPU and GPU.

Both take the same inputs, a plan's requests, and give the same ``(d, h, w)`` float32 samples. On
the CPU the steps are fused into one compiled pass (`lumbar.train.warp`), several times as fast as
DALI's own CPU warp; on a GPU they are DALI's operators, one line each. What DALI takes apart or
compiles is marked `no_type_check`, so that no wrapper that checks shapes comes between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, no_type_check

import numpy as np
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.plugin.numba.fn.experimental import numba_function

from lumbar.train.plan import CropConfig
from lumbar.train.warp import gather_slices, warp_slices

DeviceName = Literal["cpu", "gpu"]
Source = Callable[[Any], tuple[list[np.ndarray], ...]]

STORED_TYPES = {"uint8": types.UINT8, "int16": types.INT16}


def build_pipeline(
    source: Source,
    *,
    stored_dtype: str,
    crop: CropConfig,
    device: DeviceName,
    device_id: int,
    batch: int,
    threads: int,
    prefetch: int,
    seed: int,
    noisy: bool = True,
    fused: bool | None = None,
) -> Pipeline:
    """Build the pipeline that executes requests.

    ``fused`` says whether the compiled pass or DALI's operators do the work; by default the pass on
    the CPU and the operators on a GPU. The operators run on the CPU too, which tests use. They
    draw noise only where the plan is ``noisy``, from DALI's own generator: a GPU run that is
    resumed draws other noise.

    ``source`` is called with DALI's batch information in the caller's thread, so it hands over
    views: lists of volumes (depth, height, width), slices (d), matrices (2, 3) and numbers (gain,
    offset, noise, noise seed).
    """
    stored = STORED_TYPES[stored_dtype]

    @pipeline_def(
        batch_size=batch,
        num_threads=threads,
        device_id=device_id if device == "gpu" else None,
        prefetch_queue_depth=prefetch,
        exec_dynamic=True,
        seed=seed,
    )
    @no_type_check
    def define() -> Any:
        volume, slices, matrix, numbers = fn.external_source(
            source,
            num_outputs=4,
            batch=True,
            batch_info=True,
            no_copy=True,
            dtype=[stored, types.INT32, types.FLOAT, types.FLOAT],
            ndim=[3, 1, 2, 1],
        )
        if fused if fused is not None else device == "cpu":
            return _warp_in_one_pass(volume, slices, matrix, numbers, stored, crop)
        return _warp_with_operators(volume, slices, matrix, numbers, stored, crop, device, noisy)

    pipeline = define()
    pipeline.build()
    return pipeline


def _warp_in_one_pass(
    volume: Any,
    slices: Any,
    matrix: Any,
    numbers: Any,
    stored: Any,
    crop: CropConfig,
) -> Any:
    """Pick, warp, scale and add noise in one pass."""
    depth, height, width = crop.slices, crop.height, crop.width

    @no_type_check
    def shape(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            outs[0][sample][0] = depth
            outs[0][sample][1] = height
            outs[0][sample][2] = width

    # numba_function compiles a function of its own and wants the exact number of arguments.
    @no_type_check
    def run(out: Any, volume: Any, slices: Any, matrix: Any, numbers: Any) -> None:
        warp_slices(out, volume, slices, matrix, numbers)

    return numba_function(
        volume,
        slices,
        matrix,
        numbers,
        run_fn=run,
        setup_fn=shape,
        in_types=[stored, types.INT32, types.FLOAT, types.FLOAT],
        ins_ndim=[3, 1, 2, 1],
        out_types=[types.FLOAT],
        outs_ndim=[3],
        batch_processing=False,
    )


def _warp_with_operators(
    volume: Any,
    slices: Any,
    matrix: Any,
    numbers: Any,
    stored: Any,
    crop: CropConfig,
    device: DeviceName,
    noisy: bool,  # noqa: FBT001  # positional as its neighbours
) -> Any:
    """Pick on the host, copy once, then warp, scale and add noise on the device."""
    picked = fn.reshape(_pick_slices(volume, slices, stored, crop), layout="FHWC")
    gain, offset, noise = numbers[0], numbers[1], numbers[2]
    if device == "gpu":
        picked, gain, offset, noise = picked.gpu(), gain.gpu(), offset.gpu(), noise.gpu()
    warped = fn.warp_affine(
        picked,
        matrix=_half_pixel_centres(matrix),
        size=(crop.height, crop.width),
        fill_value=0,
        dtype=types.FLOAT,
    )
    scaled = fn.squeeze(warped, axes=[3]) * gain + offset
    present = fn.reshape(fn.cast(slices >= 0, dtype=types.FLOAT), shape=[crop.slices, 1, 1])
    if device == "gpu":
        present = present.gpu()
    image = scaled + fn.random.normal(scaled) * noise if noisy else scaled
    return image * present


def _half_pixel_centres(matrix: Any) -> Any:
    """Return the matrix in DALI's convention: its pixel centres lie at halves, ours at wholes."""
    shift = 0.5 - 0.5 * (matrix[:, 0:1] + matrix[:, 1:2])
    return fn.cat(matrix[:, 0:2], matrix[:, 2:3] + shift, axis=1)


def _pick_slices(volume: Any, slices: Any, stored: Any, crop: CropConfig) -> Any:
    """Gather the slices of a request, so that no other slice is copied to the device."""
    depth = crop.slices

    @no_type_check
    def shape(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            outs[0][sample][0] = depth
            outs[0][sample][1] = ins[0][sample][1]
            outs[0][sample][2] = ins[0][sample][2]
            outs[0][sample][3] = 1

    @no_type_check
    def run(out: Any, volume: Any, slices: Any) -> None:
        gather_slices(out, volume, slices)

    return numba_function(
        volume,
        slices,
        run_fn=run,
        setup_fn=shape,
        in_types=[stored, types.INT32],
        ins_ndim=[3, 1],
        out_types=[stored],
        outs_ndim=[4],
        batch_processing=False,
    )
