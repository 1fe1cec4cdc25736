"""A training step of a tiny network with random weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lumbar.doctor.host.reading import CPU, CROP, plan_of
from lumbar.doctor.host.small_cache import SERIES, small_cache
from lumbar.doctor.result import CheckResult, failed, passed
from lumbar.train.reader.batch import Batch, make_batch
from lumbar.train.run.config import RunConfig, resolve_config
from lumbar.train.run.network import build_model
from lumbar.train.trainer.trainer import Trainer

BATCH = 4
STEPS = 3
TORCH_CURE = "uv pip install --reinstall torch torchvision timm; see the row of versions"


def check_training_step() -> CheckResult:
    """Train on one batch: the losses are finite, the weights and the loss change."""
    with tiny_batches(CPU) as batch:
        trainer = start_trainer(tiny_config(bfloat16=False), CPU)
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        losses = [float(trainer.optimise(batch)[0]) for _ in range(STEPS)]
        moved = any(
            not torch.equal(old, new)
            for old, new in zip(before, trainer.model.parameters(), strict=True)
        )
    found = f"losses {', '.join(f'{loss:.3f}' for loss in losses)}"
    if not all(math.isfinite(loss) for loss in losses):
        return failed(f"{found}: not all are finite", TORCH_CURE)
    if not moved or len(set(losses)) == 1:
        return failed(f"{found}: the weights do not change", TORCH_CURE)
    return passed(found)


def tiny_config(*, bfloat16: bool) -> RunConfig:
    """Return the configuration of a network of a few thousand weights, without dropout."""
    return resolve_config(
        SERIES,
        overrides=(
            f"crop.slices={CROP.slices}",
            f"crop.height={CROP.height}",
            f"crop.width={CROP.width}",
            f"crop.pixel_mm={CROP.pixel_mm}",
            "model.backbone=test_resnet",
            "model.stride=8",
            "model.hidden=16",
            "model.dropout=0",
            f"optim.batch={BATCH}",
            "optim.warmup=0",
            f"bfloat16={str(bfloat16).lower()}",
        ),
    )


def start_trainer(config: RunConfig, device: torch.device) -> Trainer:
    """Return the state before the first step; the weights are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(config)
    trainer = Trainer.start(model.to(device), config, steps=100)
    trainer.start_epoch(0)
    return trainer


@contextmanager
def tiny_batches(device: torch.device) -> Iterator[Batch]:
    """Yield a batch with the labels of generated studies and random images."""
    with small_cache() as cache:
        plan = plan_of(cache, batch=BATCH, steps=1)
        requests = plan.requests(0, 0)
        shape = (BATCH, CROP.slices, CROP.height, CROP.width)
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        yield make_batch(image, requests, plan.samples, device=device)
