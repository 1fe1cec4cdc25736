"""What changes while a run goes on: weights, optimiser, schedule, losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from lumbar.cache.errors import LumbarError
from lumbar.cache.store import Cache
from lumbar.train.batch import Batch
from lumbar.train.config import OptimConfig
from lumbar.train.inference import forward
from lumbar.train.loss import CellLoss
from lumbar.train.model.classifier import SeriesClassifier
from lumbar.train.plan import Request
from lumbar.train.schedule import learning_rate_factor

CHECK_EVERY = 10
"""Steps between looks at the loss: a look makes the host wait for the device."""


class DivergedError(LumbarError, ArithmeticError):
    """The loss is no longer a number."""


@dataclass(slots=True)
class Training:
    """What changes while a run goes on."""

    model: SeriesClassifier
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    next_epoch: int = 0
    best_total: float = float("inf")

    @classmethod
    def start(cls, model: SeriesClassifier, config: OptimConfig, *, steps: int) -> Training:
        """Set up AdamW and the schedule of a whole run of ``steps`` steps an epoch."""
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        total = steps * config.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(step, steps=total, warmup=config.warmup),
        )
        return cls(model, optimizer, schedule)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def optimise(
        self, loss: CellLoss, batch: Batch, *, clip_norm: float, bfloat16: bool
    ) -> torch.Tensor:
        """Take one step and return its loss, still on the device."""
        value: torch.Tensor = loss(forward(self.model, batch, bfloat16=bfloat16), batch.target)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return value.detach()

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the weights."""
        device = next(self.model.parameters()).device
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "next_epoch": self.next_epoch,
            "best_total": self.best_total,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.next_epoch = state["next_epoch"]
        self.best_total = state["best_total"]
        torch.set_rng_state(state["torch_rng"])
        device = next(self.model.parameters()).device
        if state["cuda_rng"] is not None and device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], device)


@dataclass(slots=True)
class Losses:
    """The losses of an epoch, looked at only now and then."""

    cache: Cache
    pending: list[tuple[torch.Tensor, list[Request]]] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, loss: torch.Tensor, batch: Batch) -> None:
        """Remember a step's loss; look at it every `CHECK_EVERY` steps."""
        self.pending.append((loss, batch.requests))
        if len(self.pending) == CHECK_EVERY or loss.device.type == "cpu":
            self.look()

    def look(self) -> None:
        """Fetch the losses from the device; raise `DivergedError` for one that is no number."""
        values = torch.stack([loss for loss, _ in self.pending]).tolist() if self.pending else []
        for value, (_, requests) in zip(values, self.pending, strict=True):
            if not np.isfinite(value):
                series = self.cache.series["series_id"]
                raise DivergedError(
                    what="the loss is not finite",
                    where=f"series {', '.join(series[v.row] for r in requests for v in r.views)}",
                    got=value,
                    cure="lower optim.lr, or look at these series with `lumbar inspect`",
                )
        self.values += values
        self.pending.clear()
