"""The training loop: one generator from a cache to a run's folder."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lumbar.cache.files.lock import locked
from lumbar.cache.store import Cache
from lumbar.train.evaluation.baselines import for_studies, parts_by_prior
from lumbar.train.evaluation.metric import Score, score
from lumbar.train.evaluation.predictions import Predictions, write_oof
from lumbar.train.inference.forward import predict_batches, study_means
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.reader.reader import Reader
from lumbar.train.reader.thread_switching import quick_thread_switches
from lumbar.train.reader.volumes import Volumes, open_volumes
from lumbar.train.run.allocator import let_segments_grow
from lumbar.train.run.cache import check_unchanged
from lumbar.train.run.checkpoint import BEST, LAST, save_checkpoint
from lumbar.train.run.config import RunConfig
from lumbar.train.run.data import RunData
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.folder import CONFIG, OOF, claim, has_checkpoint, write_config
from lumbar.train.run.learnable import check_batch_norms, check_labels
from lumbar.train.run.predictions import untrained_cells
from lumbar.train.run.split import SampleSplit, split_samples
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.sampler import UtilisationSampler
from lumbar.train.trainer.disc_split import locate_held_out
from lumbar.train.trainer.events import (
    EpochFinished,
    RunFinished,
    RunStarted,
    StepFinished,
    TrainEvent,
    VolumesLoaded,
)
from lumbar.train.trainer.path_check import checked
from lumbar.train.trainer.profiler import StepProfiler
from lumbar.train.trainer.resume import go_to_new_rate, restore
from lumbar.train.trainer.run_log import History, read_metrics
from lumbar.train.trainer.setup import Setup, new_model, place, training_plan
from lumbar.train.trainer.trainer import DivergedError, Losses, Trainer

__all__ = ["CONFIG", "OOF", "train"]


@dataclass(slots=True)
class _Steps:
    """The losses of one epoch's steps, and their samples and seconds."""

    losses: Losses
    samples: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0


def train(
    cache: Cache,
    config: RunConfig,
    run: Path,
    *,
    device: torch.device,
    threads: int,
    tier: Tier = "auto",
    draw: Draw = "auto",
    resume: bool = False,
    ranks: Ranks | None = None,
    profiled_steps: int = 0,
) -> Iterator[TrainEvent]:
    """Train a model and write a run's folder; a killed run resumes to the same numbers.

    Several ``ranks`` train on the same batches as one alone would; the first one writes.
    ``profiled_steps`` are traced into the run's folder.

    Raises
    ------
    InputError
        If the cache cannot be trained on, the run's folder is not empty, or the data that a resumed
        run reads has changed.
    BusyError
        If another process works on the run.
    DivergedError
        If the loss is no longer finite; names the series of that batch.
    """
    let_segments_grow(device)
    ranks = ranks or Ranks()
    split = split_samples(cache, config)
    data = RunData.of(cache, split)
    if resume:
        check_unchanged(run, data, warn_unknown=ranks.is_first)
    begins = not resume or not has_checkpoint(run)
    if begins:
        check_labels(config, split)
    plan = training_plan(config, split, ranks)
    setup = Setup(
        cache=cache,
        run=run,
        split=split,
        bundle=new_model(cache, config, split, device=device, ranks=ranks),
        plan=plan,
        device=device,
        ranks=ranks,
        threads=threads,
        placement=place(
            cache, config, split, device, tier=tier, draw=draw, threads=threads, ranks=ranks
        ),
        profiled_steps=profiled_steps,
    )
    if begins:
        check_batch_norms(setup.bundle.model, config, plan)
    trainer = Trainer.start(setup.bundle.model, config, steps=plan.steps, ranks=ranks)
    severity = np.stack(list(split.held_out_severity.values()))
    prior = score(for_studies(setup.bundle.prior, len(severity)), severity)
    by_prior = parts_by_prior(np.tile(untrained_cells(config), (len(severity), 1)), severity)
    schedule = ""
    if begins:
        if ranks.is_first and not resume:
            claim(run, config, data)
    else:
        saved = restore(run, setup.bundle, trainer)
        schedule = go_to_new_rate(saved, trainer, steps=plan.steps)
    ranks.wait()
    with ExitStack() as held:
        if ranks.is_first:
            held.enter_context(locked(run))
            if resume:
                data.write(run)  # the same, but for where the cache lies now
                write_config(run, config)
        if begins:
            _save_last(setup, trainer)
        yield RunStarted(
            run=run,
            train_series=len(split.train),
            valid_series=len(split.held_out),
            epochs=config.epochs,
            first_epoch=trainer.next_epoch,
            steps=plan.steps,
            device=str(device),
            parameters=sum(p.numel() for p in setup.bundle.model.parameters()),
            placement=setup.placement.why,
            parts_by_prior=by_prior,
            schedule=schedule,
        )
        if not _is_over(config, trainer):
            held_out = split.held_out
            if config.sample == "disc":
                setup, held_out = yield from locate_held_out(setup)
            with ExitStack() as opened:
                setup, volumes = yield from _checked_volumes(setup, opened, tier=tier, draw=draw)
                yield from _epochs(
                    setup, trainer, volumes, held_out, prior=prior, by_prior=by_prior
                )
        ranks.wait()
        best = [epoch for epoch in read_metrics(run) if epoch.is_best][-1]
        yield RunFinished(run=run, best=best, prior=prior)


def _checked_volumes(
    setup: Setup, opened: ExitStack, *, tier: Tier, draw: Draw
) -> Generator[TrainEvent, None, tuple[Setup, Volumes]]:
    """Load the volumes of both sides once, and check the pixels of the first batch.

    The returned setup differs where the check found that the volumes must lie elsewhere.
    """
    volumes = yield from _loaded(setup, opened)
    sound = checked(setup, volumes, tier=tier, draw=draw)
    if sound.placement.tier != setup.placement.tier:
        opened.close()
        volumes = yield from _loaded(sound, opened)
    return sound, volumes


def _loaded(setup: Setup, opened: ExitStack) -> Generator[TrainEvent, None, Volumes]:
    """Return the volumes, loaded to where the setup places them; ``opened`` closes them."""
    placement = setup.placement
    volumes = open_volumes(
        setup.cache, placement.rows, tier=placement.tier, device=setup.device, threads=setup.threads
    )
    opened.enter_context(closing(volumes))
    for done, total in volumes.load():
        yield VolumesLoaded(done, total)
    return volumes


def _epochs(
    setup: Setup,
    trainer: Trainer,
    volumes: Volumes,
    held_out: Samples,
    *,
    prior: Score,
    by_prior: list[str],
) -> Iterator[TrainEvent]:
    """Train and validate until the last epoch, recording each."""
    first = trainer.next_epoch
    with ExitStack() as opened:
        reader = opened.enter_context(setup.reader(setup.plan, volumes, epoch=first))
        evaluation = setup.evaluation_plan(held_out)
        held_out_reader = opened.enter_context(setup.reader(evaluation, volumes))
        opened.enter_context(quick_thread_switches())
        gpu = opened.enter_context(UtilisationSampler(setup.device))
        traced = setup.profiled_steps if setup.ranks.is_first else 0
        profiler = opened.enter_context(StepProfiler(setup.run, setup.device, steps=traced))
        history = None
        if setup.ranks.is_first:
            history = opened.enter_context(
                History(setup.run, prior, by_prior=by_prior, first_epoch=first)
            )
        while not _is_over(setup.config, trainer):
            epoch = trainer.next_epoch
            trainer.start_epoch(epoch)
            rate = trainer.learning_rate
            steps = _Steps(Losses(setup.cache, setup.ranks))
            gpu.percent()
            for step in _train_epoch(setup, reader, trainer, steps, epoch):
                profiler.step()
                yield step
            trainer.end_epoch()
            gpu_percent = gpu.percent()
            predictions, valid_loss = _predict_held_out(setup, trainer, held_out_reader)
            epoch_score = _score(predictions, setup.split)
            finished = EpochFinished(
                epoch=epoch,
                train_loss=float(np.mean(steps.losses.values)),
                valid_loss=valid_loss,
                learning_rate=rate,
                score=epoch_score,
                is_best=epoch_score.total < trainer.best_total,
                samples_per_second=steps.samples / steps.seconds,
                data_wait=steps.wait_seconds / steps.seconds,
                gpu_percent=gpu_percent,
            )
            _record(setup, trainer, history, finished, predictions)
            yield finished


def _is_over(config: RunConfig, trainer: Trainer) -> bool:
    """Tell whether all epochs are done, or ``optim.patience`` epochs brought no better score."""
    waited = trainer.next_epoch - 1 - trainer.best_epoch
    patience = config.optim.patience
    return trainer.next_epoch >= config.epochs or bool(patience and waited >= patience)


def _train_epoch(
    setup: Setup, reader: Reader, trainer: Trainer, steps: _Steps, epoch: int
) -> Iterator[StepFinished]:
    """Take the optimiser steps of one epoch, adding them up in ``steps``."""
    batches = reader.epoch()
    clock = DeviceClock(setup.device)
    waits = []
    started = time.perf_counter()
    ended = clock.mark()
    for step in range(setup.plan.steps):
        asked = time.perf_counter()
        batch = next(batches)
        arrived = time.perf_counter()
        waits.append((ended, clock.mark()))
        steps.losses.add(*trainer.optimise(batch), batch)
        ended = clock.mark()
        steps.samples += len(batch.requests) * setup.ranks.world
        yield StepFinished(
            epoch=epoch,
            step=step,
            loss=steps.losses.values[-1] if steps.losses.values else None,
            samples=len(batch.requests) * setup.ranks.world,
            seconds=time.perf_counter() - asked,
            wait_seconds=arrived - asked if setup.device.type == "cpu" else None,
        )
    steps.losses.check()
    clock.synchronise()
    steps.seconds = time.perf_counter() - started
    steps.wait_seconds = sum(clock.seconds(asked, arrived) for asked, arrived in waits)


def _predict_held_out(setup: Setup, trainer: Trainer, reader: Reader) -> tuple[Predictions, float]:
    """Predict the held-out studies; cells without a prediction get the training prior."""
    probabilities, loss = predict_batches(
        trainer.scored,
        trainer.loss,
        reader.epoch(),
        bfloat16=setup.config.bfloat16,
        ranks=setup.ranks,
    )
    if not np.isfinite(loss):
        raise DivergedError(
            what="the held-out loss is not finite", where=setup.run, got=loss, cure="lower optim.lr"
        )
    means = study_means(reader.plan.samples, probabilities)
    trained = ~untrained_cells(setup.config) & means.is_predicted
    filled = np.where(trained[..., None], means.probabilities, setup.bundle.prior)
    return Predictions(means.study_ids, filled), loss


def _record(
    setup: Setup,
    trainer: Trainer,
    history: History | None,
    finished: EpochFinished,
    predictions: Predictions,
) -> None:
    """Write the results of an epoch; ``last.pt`` comes last, since a resume starts from it."""
    trainer.next_epoch = finished.epoch + 1
    if finished.is_best:
        trainer.best_total = finished.score.total
        trainer.best_epoch = finished.epoch
    if history is not None:
        if finished.is_best:
            write_oof(setup.run / OOF, predictions)
            best = replace(setup.bundle, model=trainer.scored)
            save_checkpoint(setup.run / BEST, best, trainer_state=None)
        history.add(finished)
    _save_last(setup, trainer)


def _save_last(setup: Setup, trainer: Trainer) -> None:
    """Save what a resume needs, with the state of every rank's random generators."""
    state = trainer.state()
    if setup.ranks.is_first:
        save_checkpoint(setup.run / LAST, setup.bundle, trainer_state=state)


def _score(predictions: Predictions, split: SampleSplit) -> Score:
    severity = np.stack([split.held_out_severity[s] for s in predictions.study_ids])
    return score(predictions.probabilities, severity)
