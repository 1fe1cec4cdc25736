"""The reader: what it draws on the CPU, and that a GPU's batches have the same pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from lumbar.cache.store import Cache
from lumbar.doctor.result import Result, failed, passed
from lumbar.doctor.small_cache import SERIES, small_cache
from lumbar.train.augment import AugmentConfig
from lumbar.train.batch import Batch
from lumbar.train.compiled import as_drawn, drawn_by
from lumbar.train.geometry import CropConfig
from lumbar.train.plan import Plan
from lumbar.train.reader import Reader
from lumbar.train.samples import Samples

Draw = Literal["cpu", "gpu"]
Images = list[Float[torch.Tensor, "b d 1 h w"]]

CPU = torch.device("cpu")
CROP = CropConfig(slices=8, height=48, width=40, pixel_mm=5.0)
THREADS = 2

TOLERANCE = 2e-3
"""By how much DALI's operators may differ from the compiled pass, in normalised values: they
interpolate in another order."""

READER_CURE = "uv pip install --reinstall nvidia-dali-cuda120 numba llvmlite"
DRAW_CPU_CURE = (
    "nothing that is trained here can be trusted: test the GPU's memory and the driver, and "
    "report it with --json FILE"
)
DRAW_GPU_CURE = "train with --draw cpu, and report it with --json FILE"


def check_reader() -> Result:
    """Read a batch on the CPU through DALI; compare it with the compiled pass called by hand."""
    with small_cache() as cache:
        plan = plan_of(cache, batch=4, steps=1)
        with open_reader(cache, plan, CPU, torch.float32, "cpu") as reader:
            batch = next(reader.epoch())
        wrong = [not _is_as_drawn(cache, batch, place) for place in range(len(batch.requests))]
    if any(wrong):
        found = f"{sum(wrong)} of {len(wrong)} samples are not those of the plan"
        return failed(found, READER_CURE)
    return passed(f"{len(wrong)} samples, bit for bit the plan's")


def check_draw_cpu(device: torch.device) -> Result:
    """Read batches that the CPU draws and DALI copies: bit for bit those of a CPU run."""
    dtype = torch.bfloat16
    with small_cache() as cache:
        plan = plan_of(cache, batch=4, steps=4)
        here = read(cache, plan, CPU, dtype, "cpu")
        there = read(cache, plan, device, dtype, "cpu")
    wrong = sum(not torch.equal(ours, theirs) for ours, theirs in zip(here, there, strict=True))
    if wrong:
        return failed(f"{wrong} of {len(here)} batches differ from the CPU's", DRAW_CPU_CURE)
    return passed(f"{len(here)} batches, bit for bit the CPU's")


def check_draw_gpu(device: torch.device) -> Result:
    """Read batches that DALI's operators draw, from disk and from the device."""
    with small_cache() as cache:
        # The noise of a GPU need not be the CPU's.
        plan = plan_of(cache, batch=4, steps=4, augment=AugmentConfig(noise=0.0))
        here = read(cache, plan, CPU, torch.float32, "cpu")
        found = {
            tier: difference(here, read(cache, plan, device, torch.float32, "gpu", tier=tier))
            for tier in ("disk", "device")
        }
    text = ", ".join(f"tier {tier} differs by {most:.1e}" for tier, most in found.items())
    if max(found.values()) <= TOLERANCE:
        return passed(text)
    return failed(f"{text}; expected at most {TOLERANCE:.0e}", DRAW_GPU_CURE)


def plan_of(cache: Cache, *, batch: int, steps: int, augment: AugmentConfig | None = None) -> Plan:
    """Return a plan of ``steps`` steps an epoch, which takes each series as often as it needs."""
    samples = Samples.of_series(cache, cache.rows_of(SERIES))
    return Plan(
        _repeated(samples, batch * steps),
        CROP,
        augment or AugmentConfig(),
        batch=batch,
        shuffle=True,
        seed=1,
    )


def read(
    cache: Cache,
    plan: Plan,
    device: torch.device,
    dtype: torch.dtype,
    draw: Draw,
    *,
    tier: Literal["disk", "device"] = "disk",
) -> Images:
    """Return the images of an epoch, on the host."""
    with open_reader(cache, plan, device, dtype, draw, tier=tier) as reader:
        # They are all kept, so that one that is written over later shows.
        images = [batch.image for batch in islice(reader.epoch(), plan.steps)]
        return [image.cpu() for image in images]


@contextmanager
def open_reader(
    cache: Cache,
    plan: Plan,
    device: torch.device,
    dtype: torch.dtype,
    draw: Draw,
    *,
    tier: Literal["disk", "device"] = "disk",
) -> Iterator[Reader]:
    """Give a reader and close it."""
    fused = draw == "cpu"
    with Reader(
        cache, plan, device=device, dtype=dtype, threads=THREADS, tier=tier, fused=fused
    ) as reader:
        yield reader


def difference(ours: Images, theirs: Images) -> float:
    """Return the greatest difference of two runs' pixels; not a number differs without end."""
    most = 0.0
    for one, other in zip(ours, theirs, strict=True):
        far = (one.double() - other.double()).abs().max().item()
        most = max(most, far if far == far else float("inf"))  # noqa: PLR0124  # NaN alone differs
    return most


def _is_as_drawn(cache: Cache, batch: Batch, place: int) -> bool:
    (view,) = batch.requests[place].views
    draw, bits = drawn_by(torch.float32, light=True)
    image = np.empty((len(view.slices), CROP.height, CROP.width), bits)
    numbers = view.intensity.packed(*cache.scale_and_offset(view.row))
    key = view.intensity.packed_key()
    draw(image, np.array(cache.volume(view.row)), view.slices, view.matrix, numbers, key)
    return torch.equal(batch.image[place, :, 0], as_drawn(torch.from_numpy(image), torch.float32))


def _repeated(samples: Samples, n: int) -> Samples:
    """Return ``n`` samples, each of the given ones in turn."""
    index = np.arange(n) % len(samples)
    names = ("row", "series_type", "shape", "spacing_mm", "patient_axes", "centre_dhw", "stack",
             "level", "severity")  # fmt: skip
    taken = {name: getattr(samples, name)[index] for name in names}
    return replace(samples, study_id=tuple(samples.study_id[i] for i in index), **taken)
