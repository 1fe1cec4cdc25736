"""Trainer state: weights, moving average, optimiser and schedule; and the losses of an epoch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lumbar.cache.errors import LumbarError
from lumbar.cache.store import Cache
from lumbar.train.inference.forward import forward
from lumbar.train.loss import CellLoss
from lumbar.train.optim import load_state, make_optimiser
from lumbar.train.plan.plan import Request
from lumbar.train.reader.batch import Batch
from lumbar.train.run.config import RunConfig
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.network import Network, stages
from lumbar.train.trainer.moving_average import MovingAverage
from lumbar.train.trainer.phases import phase_at, rate_factor

CHECK_EVERY = 10
"""Steps between two checks of the loss: a check makes the host wait for the device."""


class DivergedError(LumbarError, ArithmeticError):
    """The loss is no longer finite."""


@dataclass(slots=True)
class Trainer:
    """Trainer state: weights, moving average, optimiser, schedule, and the epochs done.

    ``parallel`` is the network in torch's wrapper for several ranks, None with one; ``average`` is
    the moving average of the weights, None without ``optim.ema``.
    """

    config: RunConfig
    model: Network
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    ranks: Ranks
    average: MovingAverage | None
    loss: CellLoss
    parallel: nn.Module | None = None
    head_only: bool = False
    next_epoch: int = 0
    best_total: float = float("inf")
    best_epoch: int = -1

    @classmethod
    def start(
        cls, model: Network, config: RunConfig, *, steps: int, ranks: Ranks | None = None
    ) -> Trainer:
        """Set up AdamW and the schedule of a whole run of ``steps`` steps an epoch."""
        optimizer = make_optimiser(stages(model), config.optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(config, step, steps=steps)
        )
        average = MovingAverage(model, decay=config.optim.ema) if config.optim.ema else None
        device = next(model.parameters()).device
        loss = CellLoss(config.loss, config.series_types).to(device)
        return cls(config, model, optimizer, schedule, ranks or Ranks(), average, loss)

    @property
    def learning_rate(self) -> float:
        """The rate of the head's next step."""
        return float(self.schedule.get_last_lr()[0])

    @property
    def scored(self) -> Network:
        """The network that is scored and kept: the average of the weights, if there is one."""
        return self.model if self.average is None else self.average.module

    def start_epoch(self, epoch: int) -> None:
        """Make the network ready to train in the phase of an epoch."""
        phase = phase_at(self.config, epoch)
        changes = phase.head_only != self.head_only
        if changes:
            device = next(self.model.parameters()).device
            self.loss = CellLoss(phase.loss, self.config.series_types).to(device)
            self.head_only = phase.head_only
            *below, _ = stages(self.model)
            for stage in below:
                for parameter in stage:
                    parameter.requires_grad = False
        if self.ranks.world > 1 and (changes or self.parallel is None):
            self.parallel = DistributedDataParallel(
                self.model,
                # A study's batch may lack a type of series, whose encoder then has no gradient.
                find_unused_parameters=self.config.sample == "study",
            )
        self.model.train()
        if self.head_only:
            _freeze_statistics(self.model)

    def optimise(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step; return this rank's part of its loss, and the gradient's norm.

        The parts of all ranks add up to the loss of all samples as one batch, and so do the
        gradients, however the samples are divided among the ranks.
        """
        optim, ranks = self.config.optim, self.ranks
        weights = ranks.sum(self.loss.weights(batch.target))
        self.optimizer.zero_grad(set_to_none=True)
        parts = batch.parts(optim.accumulate)
        losses = []
        for number, part in enumerate(parts, start=1):
            with self._in_step(last=number == len(parts)):
                logits = forward(self.parallel or self.model, part, bfloat16=self.config.bfloat16)
                value = self.loss.total(self.loss.sums(logits, part.target), weights)
                # Torch averages gradients over the ranks; here they have to be added.
                torch.autograd.backward(value * ranks.world)
            losses.append(value.detach())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.model)
        return (losses[0] if len(losses) == 1 else torch.stack(losses).sum()), norm

    def end_epoch(self) -> None:
        """Copy the first rank's buffers to all: each rank's batch norms saw their own samples."""
        self.ranks.share(self.model.buffers())
        if self.average is not None:
            self.ranks.share(self.average.module.buffers())

    def _in_step(self, *, last: bool) -> Any:
        """Have the ranks exchange gradients only with the last part of a step."""
        if isinstance(self.parallel, DistributedDataParallel) and not last:
            return self.parallel.no_sync()
        return nullcontext()

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the weights; every rank must call it."""
        device = next(self.model.parameters()).device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "next_epoch": self.next_epoch,
            "best_total": self.best_total,
            "best_epoch": self.best_epoch,
            "rng": self.ranks.gather((torch.get_rng_state(), cuda)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state`; with another number of ranks the random generators start anew."""
        load_state(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.next_epoch = state["next_epoch"]
        self.best_total = state["best_total"]
        self.best_epoch = state["best_epoch"]
        if len(state["rng"]) == self.ranks.world:
            host, cuda = state["rng"][self.ranks.rank]
            torch.set_rng_state(host)
            device = next(self.model.parameters()).device
            if cuda is not None and device.type == "cuda":
                torch.cuda.set_rng_state(cuda, device)


def _freeze_statistics(model: nn.Module) -> None:
    """Set frozen modules to eval mode: no dropout, fixed statistics of batch norms."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


@dataclass(slots=True)
class Losses:
    """The losses of an epoch, summed over the ranks and fetched from the device in groups."""

    cache: Cache
    ranks: Ranks = field(default_factory=Ranks)
    pending: list[tuple[torch.Tensor, torch.Tensor, list[Request]]] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, loss: torch.Tensor, norm: torch.Tensor, batch: Batch) -> None:
        """Keep a step's loss and its gradient's norm; check them every `CHECK_EVERY` steps."""
        self.pending.append((loss, norm, batch.requests))
        if len(self.pending) == CHECK_EVERY or loss.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Fetch the losses from the device; raise `DivergedError` for one that is not finite."""
        if not self.pending:
            return
        losses = self.ranks.sum(torch.stack([loss for loss, _, _ in self.pending])).tolist()
        norms = torch.stack([norm for _, norm, _ in self.pending]).tolist()
        for loss, norm, (_, _, requests) in zip(losses, norms, self.pending, strict=True):
            # All ranks see the same sums.
            if not np.isfinite(loss) or not np.isfinite(norm):
                what = "gradient" if np.isfinite(loss) else "loss"
                raise DivergedError(
                    what=f"the {what} is not finite",
                    where=f"series {', '.join(self._series_of(requests))}",
                    got=norm if np.isfinite(loss) else loss,
                    cure="lower optim.lr, or see these series with `lumbar inspect`",
                )
        self.values += losses
        self.pending.clear()

    def _series_of(self, requests: list[Request]) -> list[str]:
        """Return the series of a step of all ranks."""
        rows = list(dict.fromkeys(view.row for request in requests for view in request.views))
        series = self.cache.series["series_id"]
        return [series[row] for of_rank in self.ranks.gather(rows) for row in of_rank]
