"""The two loops: lumbar's, through its events, and the shortest that torch allows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lumbar.cache.store import Cache
from lumbar.train.loss import CellLoss
from lumbar.train.reader.batch import Batch
from lumbar.train.reader.reader import Reader
from lumbar.train.run.config import RunConfig
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.network import build_model
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.events import StepFinished, TrainEvent
from lumbar.train.trainer.loop import train
from lumbar.train.trainer.setup import training_plan

READY = 6
"""Steps of lumbar's that are not counted: more batches than lie ready when an epoch begins."""


@dataclass(frozen=True, slots=True)
class LoopTask:
    """What both loops do: the same network on batches of the same size and type."""

    cache: Cache
    config: RunConfig
    device: torch.device
    threads: int

    @property
    def images_a_step(self) -> int:
        """The slices of a batch; all series are deeper than the box."""
        return self.config.optim.batch * self.config.crop.slices

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(slots=True)
class Timed:
    """Steps between two marks, at both of which the device had done all its work."""

    task: LoopTask
    steps: int = 0
    _began: tuple[float, float] = (0.0, 0.0)
    _ended: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        """Start to count."""
        self.task.synchronise()
        self._began = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Stop counting."""
        self.task.synchronise()
        self._ended = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Wall time of a step."""
        return (self._ended[0] - self._began[0]) / self.steps

    @property
    def cpu_seconds(self) -> float:
        """What all threads of the process took for a step: it hardly knows of other processes."""
        return (self._ended[1] - self._began[1]) / self.steps

    @property
    def images_per_second(self) -> float:
        """Slices over wall time."""
        return self.task.images_a_step / self.seconds


def lumbar_steps(task: LoopTask) -> Iterator[TrainEvent]:
    """Yield the events of a new run, which is removed with the generator."""
    with tempfile.TemporaryDirectory() as folder:
        events = train(
            task.cache,
            task.config,
            Path(folder, "run"),
            device=task.device,
            threads=task.threads,
        )
        with closing(events):
            yield from events


def time_lumbar(task: LoopTask, *, steps: int) -> Timed:
    """Train for a part of an epoch, and time the steps that follow the first `READY`.

    Batches that lay ready would be for nothing, and a short one too fast.
    """
    timed = Timed(task)
    with closing(lumbar_steps(task)) as events:
        for event in events:
            if not isinstance(event, StepFinished):
                continue
            if event.epoch or event.samples < task.config.optim.batch:
                break
            if event.step == READY - 1:
                timed.begin()
            if event.step >= READY:
                timed.steps += 1
            if timed.steps == steps:
                timed.end()
                return timed
    message = f"an epoch has fewer steps of whole batches than {READY} and {steps} to time"
    raise RuntimeError(message)


class BareLoop:
    """Forward, loss, backward, clipping, AdamW on one batch that lies on the device."""

    def __init__(self, task: LoopTask) -> None:
        self.task = task
        torch.manual_seed(task.config.seed)
        self.model = build_model(task.config, weights=False).to(task.device).train()
        if task.config.compile:
            self.model.compile()
        self.loss = CellLoss(task.config.loss, task.config.series_types).to(task.device)
        optim = task.config.optim
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay
        )
        self.batch = first_batch(task)

    def step(self) -> None:
        """Take a step."""
        self.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.task.config.optim.clip_norm)
        self.optimizer.step()

    def backward(self) -> None:
        """Compute the gradient, written out: what lumbar's own forward pass may cost is seen."""
        batch, config = self.batch, self.task.config
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.task.device.type, torch.bfloat16, enabled=config.bfloat16):
            logits = self.model(
                batch.image,
                batch.present,
                batch.position,
                batch.lengths,
                batch.series_type,
                batch.level,
            )
        self.loss(logits, batch.target).backward()


def time_bare(task: LoopTask, *, steps: int) -> Timed:
    """Time the bare loop, opened anew as lumbar's is, after as many steps that do not count."""
    loop = BareLoop(task)
    for _ in range(READY):
        loop.step()
    timed = Timed(task, steps=steps)
    timed.begin()
    for _ in range(steps):
        loop.step()
    timed.end()
    return timed


def first_batch(task: LoopTask) -> Batch:
    """Return the first batch of a run."""
    plan = training_plan(task.config, split_samples(task.cache, task.config), Ranks())
    dtype = torch.bfloat16 if task.config.bfloat16 else torch.float32
    with Reader(task.cache, plan, device=task.device, dtype=dtype, threads=task.threads) as reader:
        return next(reader.epoch())
