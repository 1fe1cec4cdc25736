"""The training loop: one generator from a cache to a run's folder."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64

from lumbar.cache.errors import InputError
from lumbar.cache.lock import locked
from lumbar.cache.names import TARGET_COLUMNS
from lumbar.cache.store import Cache
from lumbar.cache.tables import write_atomically
from lumbar.train.augment import AugmentConfig
from lumbar.train.checkpoint import (
    BEST,
    LAST,
    TrainedModel,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from lumbar.train.clock import DeviceClock
from lumbar.train.config import RunConfig
from lumbar.train.events import (
    EpochFinished,
    RunFinished,
    RunStarted,
    StepFinished,
    TrainEvent,
    VolumesLoaded,
)
from lumbar.train.history import History, read_metrics
from lumbar.train.inference import predict_batches, study_predictions
from lumbar.train.loss import CellLoss
from lumbar.train.metric import Score, score
from lumbar.train.plan import Plan
from lumbar.train.prior import weighted_prior, with_floor
from lumbar.train.reader import Reader
from lumbar.train.residency import Tier, Volumes, choose_tier, open_volumes
from lumbar.train.studies import Split, split_series
from lumbar.train.training import DivergedError, Losses, Training
from lumbar.train.utilisation import UtilisationSampler

CONFIG = "config.toml"
OOF = "oof.parquet"

StudyPredictions = dict[str, Float64[np.ndarray, "25 3"]]


@dataclass(frozen=True, slots=True)
class _Job:
    """What stays the same while a run goes on."""

    cache: Cache
    run: Path
    split: Split
    trained: TrainedModel
    plan: Plan
    loss: CellLoss
    prior_score: Score
    device: torch.device
    threads: int
    rows: list[int]
    tier: Literal["disk", "device"]
    tier_chosen: str

    @property
    def config(self) -> RunConfig:
        return self.trained.config

    def reader(self, plan: Plan, volumes: Volumes, *, epoch: int = 0) -> Reader:
        """Open a reader on a plan over this run's volumes."""
        return Reader(
            self.cache,
            plan,
            device=self.device,
            dtype=torch.bfloat16 if self.config.bfloat16 else torch.float32,
            threads=self.threads,
            volumes=volumes,
            epoch=epoch,
        )


@dataclass(slots=True)
class _Steps:
    """What the steps of one epoch came to."""

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
    resume: bool = False,
) -> Iterator[TrainEvent]:
    """Train a model and leave a run's folder behind; a killed run resumes to the same numbers.

    Raises
    ------
    InputError
        If the cache cannot be trained on, or the run's folder holds something.
    BusyError
        If another process works on the run.
    DivergedError
        If the loss is no longer a number; names the series of that batch.
    """
    split = split_series(cache, config.series_type, config.split)
    job = _set_up(cache, config, run, split, device=device, threads=threads, tier=tier)
    training = Training.start(job.trained.model, config.optim, steps=job.plan.steps)
    if resume:
        _restore(run, job.trained, training)
    else:
        _claim(run, config)
    with locked(run):
        if not resume:
            save_checkpoint(run / LAST, job.trained, training=training.state())
        yield RunStarted(
            run=run,
            train_series=len(split.train),
            valid_series=len(split.held_out),
            epochs=config.optim.epochs,
            first_epoch=training.next_epoch,
            steps=job.plan.steps,
            device=str(device),
            parameters=sum(p.numel() for p in job.trained.model.parameters()),
            tier=job.tier_chosen,
        )
        if training.next_epoch < config.optim.epochs:
            yield from _with_volumes(job, training)
        best = [epoch for epoch in read_metrics(run) if epoch.is_best][-1]
        yield RunFinished(run=run, best=best, prior=job.prior_score)


def _set_up(
    cache: Cache,
    config: RunConfig,
    run: Path,
    split: Split,
    *,
    device: torch.device,
    threads: int,
    tier: Tier,
) -> _Job:
    """Build what the run works with: the same seed gives the same weights."""
    plan = Plan(
        split.train,
        config.crop,
        config.augment,
        batch=config.optim.batch,
        shuffle=True,
        sampling=config.sampling,
        seed=config.seed,
    )
    _check_batch_norm(config, plan.epoch_size)
    rows = sorted({*split.train.rows, *split.held_out.rows})
    chosen, why = choose_tier(tier, cache, rows, device)
    torch.manual_seed(config.seed)
    prior = with_floor(weighted_prior(split.train_severity))
    trained = TrainedModel(config, build_model(config).to(device), prior, cache.voxel_config)
    if config.compile:
        trained.model.compile()
    return _Job(
        cache=cache,
        run=run,
        split=split,
        trained=trained,
        plan=plan,
        loss=CellLoss(config.loss, config.series_types).to(device),
        prior_score=_score(dict.fromkeys(split.held_out_severity, prior), split),
        device=device,
        threads=threads,
        rows=rows,
        tier=chosen,
        tier_chosen=why,
    )


def _with_volumes(job: _Job, training: Training) -> Iterator[TrainEvent]:
    """Load the volumes once, for both sides of the split, and train on them."""
    volumes = open_volumes(
        job.cache, job.rows, tier=job.tier, device=job.device, threads=job.threads
    )
    with closing(volumes):
        for done, total in volumes.load():
            yield VolumesLoaded(done, total)
        yield from _epochs(job, training, volumes)


def _epochs(job: _Job, training: Training, volumes: Volumes) -> Iterator[TrainEvent]:
    """Train and validate until the last epoch, recording each."""
    first = training.next_epoch
    evaluation = Plan(
        job.split.held_out,
        job.config.crop,
        AugmentConfig.none(),
        batch=job.config.optim.batch,
        shuffle=False,
    )
    with (
        job.reader(job.plan, volumes, epoch=first) as reader,
        job.reader(evaluation, volumes) as held_out,
        History(job.run, job.prior_score, first_epoch=first) as history,
        UtilisationSampler(job.device) as gpu,
    ):
        for epoch in range(first, job.config.optim.epochs):
            rate = training.learning_rate
            steps = _Steps(Losses(job.cache))
            gpu.percent()
            yield from _train_epoch(job, reader, training, steps, epoch)
            gpu_percent = gpu.percent()
            known, valid_loss = _predict_held_out(job, held_out)
            epoch_score = _score(known, job.split)
            finished = EpochFinished(
                epoch=epoch,
                train_loss=float(np.mean(steps.losses.values)),
                valid_loss=valid_loss,
                learning_rate=rate,
                score=epoch_score,
                is_best=epoch_score.total < training.best_total,
                samples_per_second=steps.samples / steps.seconds,
                data_wait=steps.wait_seconds / steps.seconds,
                gpu_percent=gpu_percent,
            )
            _record(job, training, history, finished, known)
            yield finished


def _train_epoch(
    job: _Job, reader: Reader, training: Training, steps: _Steps, epoch: int
) -> Iterator[StepFinished]:
    """Take the optimiser steps of one epoch, adding them up in ``steps``."""
    training.model.train()
    batches = reader.epoch()
    clock = DeviceClock(job.device)
    waits = []
    started = time.perf_counter()
    ended = clock.mark()
    for step in range(job.plan.steps):
        asked = time.perf_counter()
        batch = next(batches)
        arrived = time.perf_counter()
        waits.append((ended, clock.mark()))
        value = training.optimise(
            job.loss, batch, clip_norm=job.config.optim.clip_norm, bfloat16=job.config.bfloat16
        )
        steps.losses.add(value, batch)
        ended = clock.mark()
        steps.samples += len(batch.requests)
        yield StepFinished(
            epoch=epoch,
            step=step,
            loss=steps.losses.values[-1] if steps.losses.values else None,
            samples=len(batch.requests),
            seconds=time.perf_counter() - asked,
            wait_seconds=arrived - asked if job.device.type == "cpu" else None,
        )
    steps.losses.look()
    clock.synchronise()
    steps.seconds = time.perf_counter() - started
    steps.wait_seconds = sum(clock.seconds(asked, arrived) for asked, arrived in waits)


def _predict_held_out(job: _Job, reader: Reader) -> tuple[StudyPredictions, float]:
    """Predict the held-out studies; the prior speaks where the model was not trained."""
    probabilities, loss = predict_batches(
        job.trained.model, job.loss, reader.epoch(), bfloat16=job.config.bfloat16
    )
    if not np.isfinite(loss):
        raise DivergedError(
            what="the held-out loss is not finite", where=job.run, got=loss, cure="lower optim.lr"
        )
    trained = job.loss.trained.cpu().numpy()[:, None]
    means = study_predictions(job.split.held_out, probabilities)
    return {s: np.where(trained, mean, job.trained.prior) for s, mean in means.items()}, loss


def _record(
    job: _Job,
    training: Training,
    history: History,
    finished: EpochFinished,
    known: StudyPredictions,
) -> None:
    """Write what an epoch gave; ``last.pt`` comes last, since a resume starts from it."""
    training.next_epoch = finished.epoch + 1
    if finished.is_best:
        training.best_total = finished.score.total
        _write_oof(job.run / OOF, known)
        save_checkpoint(job.run / BEST, job.trained, training=None)
    history.add(finished)
    save_checkpoint(job.run / LAST, job.trained, training=training.state())


def _check_batch_norm(config: RunConfig, n_series: int) -> None:
    """Refuse batch norm in the head where a batch would hold one series: it has no variance."""
    smallest = n_series % config.optim.batch or config.optim.batch
    if config.model.head == "rsna2022" and config.model.norm == "batch" and smallest == 1:
        raise InputError(
            what="batch norm with a single series in a batch",
            where="model.norm",
            got=f"{n_series} series in batches of {config.optim.batch}",
            expected="two or more in every batch",
            cure="set model.norm to layer or none, or another optim.batch",
        )


def _claim(run: Path, config: RunConfig) -> None:
    """Make the run's folder; refuse one that holds another run."""
    if run.exists() and not (run.is_dir() and not any(run.iterdir())):
        raise InputError(
            what="the run's folder is not empty",
            where=run,
            got="a folder that holds something" if run.is_dir() else "a file",
            expected="a new or empty folder",
            cure="go on with it by --resume, or name another --run",
        )
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / CONFIG, config.to_toml().encode())


def _restore(run: Path, trained: TrainedModel, training: Training) -> None:
    """Put the last checkpoint of a run into the model, the optimiser and the generators."""
    saved, state = load_checkpoint(run / LAST)
    if saved.config != trained.config or state is None:
        raise InputError(
            what="the checkpoint is of another configuration",
            where=run / LAST,
            got=f"another than {run / CONFIG} holds",
            expected="the configuration that the run was started with",
            cure=f"put {CONFIG} back as it was, or start another run",
        )
    # The prior tells the training studies: with others there would be another.
    if saved.preprocess != trained.preprocess or not np.array_equal(saved.prior, trained.prior):
        raise InputError(
            what="the checkpoint is of another cache",
            where=run / LAST,
            got="another preprocessing, or other studies to train on",
            expected="the cache that the run was started on",
            cure="resume on that cache or start another run",
        )
    trained.model.load_state_dict(saved.model.state_dict())
    training.restore(state)


def _score(known: StudyPredictions, split: Split) -> Score:
    """Score the predictions of the held-out studies."""
    severity = np.stack([split.held_out_severity[study_id] for study_id in known])
    return score(np.stack(list(known.values())), severity)


def _write_oof(path: Path, known: StudyPredictions) -> None:
    """Write the held-out predictions: one row a study, 75 columns."""
    values = np.stack(list(known.values())).reshape(len(known), -1).astype(np.float32)
    table = pl.DataFrame(values, schema=list(TARGET_COLUMNS))
    written = io.BytesIO()
    table.insert_column(0, pl.Series("study_id", list(known))).sort("study_id").write_parquet(
        written
    )
    write_atomically(path, written.getvalue())
