"""The DALI pipeline: one definition for CPU and GPU.

It takes a plan's views and gives ``(d, h, w)`` images. Either one compiled function renders them on
the host (`lumbar.train.kernels`), several times as fast as DALI's CPU operators, and DALI copies
them to a GPU; or DALI's operators render them on the device (`lumbar.train.reader.dali_ops`).
Functions that DALI parses are marked `no_type_check`, which keeps the tests' shape checks away.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, no_type_check

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import Pipeline

from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.reader.dali_numba import (
    CompiledFunction,
    compiled_gather,
    compiled_renderer,
    gathered_shape,
    rendered_shape,
    renderer_of,
)
from lumbar.train.reader.dali_ops import render_with_operators

DeviceName = Literal["cpu", "gpu"]
StepSource = Callable[[Any], tuple[Any, ...]]

ABSENT_LIBRARIES = (
    r"nvidia-dali-cuda\d+ is no longer shipped with CUDA runtime\..* cuFFT is typically provided",
    r"nvidia-dali-cuda\d+ is no longer shipped with CUDA runtime\..* NPP is typically provided",
)
"""Warnings of DALI where the cuFFT or NPP libraries of its CUDA version are absent. No operator
used here needs them; all other warnings are shown."""

DALI_TYPES = {"uint8": types.UINT8, "int16": types.INT16, "float32": types.FLOAT}


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """What a pipeline is built for.

    ``stored_dtype`` is the type of the volumes; ``dtype`` that of the images, float32 for the
    operators. ``draw`` is ``cpu`` for the compiled function, ``gpu`` for the operators, which run
    on ``device``. With ``picked`` the source gives the picked slices (d, height, width, 1) as
    tensors on the device.
    """

    crop: CropConfig
    augment: AugmentConfig
    stored_dtype: str
    dtype: torch.dtype
    device: DeviceName
    device_id: int
    views: int
    threads: int
    prefetch: int
    draw: DeviceName
    picked: bool = False


def build_pipeline(source: StepSource, config: GraphConfig) -> Pipeline:
    """Build the pipeline that renders views.

    DALI calls ``source`` with its batch information, in the thread that runs the pipeline. It gives
    one entry per view of volumes (depth, height, width), slices (d), matrices (2, 3), numbers
    (`lumbar.train.plan.pixel_params`) and keys (2).
    """
    stored = DALI_TYPES[config.stored_dtype]

    @pipeline_def(
        batch_size=config.views,
        num_threads=config.threads,
        device_id=config.device_id if config.device == "gpu" else None,
        prefetch_queue_depth=config.prefetch,
        exec_dynamic=True,
    )
    @no_type_check
    def define() -> Any:
        volume, slices, *others = _inputs(source, config, stored)
        if config.draw == "cpu":
            rendered = _render_in_one_pass([volume, slices, *others], stored, config)
            return rendered.gpu() if config.device == "gpu" else rendered
        picked = volume if config.picked else _pick_slices(volume, slices, stored, config)
        return render_with_operators(
            picked,
            slices,
            *others,
            crop=config.crop,
            augment=config.augment,
            device=config.device,
        )

    with warnings.catch_warnings():
        for message in ABSENT_LIBRARIES:
            warnings.filterwarnings("ignore", message)
        pipeline = define()
        pipeline.build()
    return pipeline


def _inputs(source: StepSource, config: GraphConfig, stored: Any) -> list[Any]:
    """Return the inputs of the pipeline; the keys are None where nothing needs them.

    Arrays on the host are not copied: the source keeps them until their batch comes out. Slices
    that were picked on a GPU are a separate input.
    """
    inputs = partial(fn.external_source, batch=True, batch_info=True)
    on_host = partial(inputs, no_copy=True)
    n = 5 if config.draw == "cpu" or config.augment.noise > 0 else 4
    numeric = [types.INT32, types.FLOAT, types.FLOAT, types.UINT32][: n - 1]
    axes = [1, 2, 1, 1][: n - 1]
    handed: dict[int, Any] = {}

    # With two inputs DALI asks twice for each step.
    @no_type_check
    def step(info: Any) -> Any:
        if info.iteration not in handed:
            handed.clear()
            handed[info.iteration] = source(info)[:n]
        return handed[info.iteration]

    @no_type_check
    def volumes(info: Any) -> Any:
        return step(info)[0]

    @no_type_check
    def others(info: Any) -> Any:
        return step(info)[1:]

    if config.picked:
        # The copy runs on torch's stream, behind the kernels that gather the slices, and DALI waits
        # for it. Without the copy DALI could read the memory before it is filled.
        picked = inputs(
            volumes,
            dtype=stored,
            ndim=4,
            layout="FHWC",
            device=config.device,
            no_copy=False,
            use_copy_kernel=True,
        )
        nodes = [picked, *on_host(others, num_outputs=n - 1, dtype=numeric, ndim=axes)]
    else:
        nodes = list(on_host(step, num_outputs=n, dtype=[stored, *numeric], ndim=[3, *axes]))
    return nodes if n == 5 else [*nodes, None]


def _render_in_one_pass(inputs: list[Any], stored: Any, config: GraphConfig) -> Any:
    """Render a view by one call of a compiled function."""
    light = config.augment.is_light
    _, bits = renderer_of(config.dtype, light=light)
    render = CompiledFunction(
        compiled_renderer(config.dtype, config.stored_dtype, light=light),
        setup_fn=rendered_shape(config.crop.height, config.crop.width),
        in_types=[stored, types.INT32, types.FLOAT, types.FLOAT, types.UINT32],
        ins_ndim=[3, 1, 2, 1, 1],
        out_types=[DALI_TYPES[bits.name]],
        outs_ndim=[3],
    )
    return render(*inputs)


def _pick_slices(volume: Any, slices: Any, stored: Any, config: GraphConfig) -> Any:
    """Gather the slices of a view, so that only they are copied to the device."""
    gather = CompiledFunction(
        compiled_gather(config.stored_dtype),
        setup_fn=gathered_shape(),
        in_types=[stored, types.INT32],
        ins_ndim=[3, 1],
        out_types=[stored],
        outs_ndim=[4],
    )
    return fn.reshape(gather(volume, slices), layout="FHWC")
