"""The steps behind the loaders: the configuration's training step, or a sleep of known length."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lumbar.train.reader.batch import Batch
from lumbar.train.run.config import RunConfig
from lumbar.train.run.network import build_model
from lumbar.train.trainer.trainer import Trainer

TakeStep = Callable[[Batch], None]


@dataclass(frozen=True, slots=True)
class BenchStep:
    """A step to measure with; ``name`` is part of the names of its results."""

    name: str
    label: str
    simulated: bool
    take: TakeStep


def model_step(config: RunConfig, device: torch.device, *, steps: int) -> BenchStep:
    """Return the real training step: forward, backward, clipping, AdamW, schedule."""
    torch.manual_seed(config.seed)
    # Trained weights change no speed.
    model = build_model(config, weights=False).to(device)
    model.train()
    if config.compile:
        model.compile()
    trainer = Trainer.start(model, config, steps=steps)

    def take(batch: Batch) -> None:
        trainer.optimise(batch)

    on = "GPU" if device.type == "cuda" else "CPU"
    label = f"{config.model.backbone} training step on the {on}"
    return BenchStep("end_to_end", label, simulated=False, take=take)


def simulated_step(milliseconds: float) -> BenchStep:
    """Return a step that sleeps, as the host does while an accelerator computes."""

    def take(_: Batch) -> None:
        time.sleep(milliseconds / 1000)

    name = f"end_to_end_simulated_{milliseconds:g}_ms"
    label = f"simulated step: sleeps {milliseconds:g} ms"
    return BenchStep(name, label, simulated=True, take=take)


def take_nothing(_: object) -> None:
    """Do nothing with a batch: the loader is measured alone."""
