"""What a run is set up with; it stays the same while the run trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers.norm_act import convert_sync_batchnorm

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.evaluation.baselines import weighted_prior, with_floor
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.placement import Draw, Placement, Tier, choose_placement
from lumbar.train.reader.reader import Reader
from lumbar.train.reader.volumes import Volumes
from lumbar.train.run.checkpoint import ModelBundle
from lumbar.train.run.config import RunConfig
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.learnable import smallest_part
from lumbar.train.run.network import build_model
from lumbar.train.run.split import SampleSplit

OTHER_SEED = 1_000_003
"""Between the seeds of two ranks, so that their dropout differs."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What stays the same while a run trains."""

    cache: Cache
    run: Path
    split: SampleSplit
    bundle: ModelBundle
    plan: Plan
    device: torch.device
    ranks: Ranks
    threads: int
    placement: Placement
    profiled_steps: int

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.bundle.config

    def evaluation_plan(self, held_out: Samples) -> Plan:
        """Return this rank's share of the plan that predicts the held-out samples."""
        return Plan(
            held_out,
            self.config.crop,
            AugmentConfig.none(),
            batch=self.plan.batch,
            shuffle=False,
            rank=self.ranks.rank,
            world=self.ranks.world,
        )

    def reader(self, plan: Plan, volumes: Volumes, *, epoch: int = 0) -> Reader:
        """Open a reader on a plan over this run's volumes."""
        return Reader(
            self.cache,
            plan,
            device=self.device,
            dtype=torch.bfloat16 if self.config.bfloat16 else torch.float32,
            threads=self.threads,
            draw=self.placement.draw,
            volumes=volumes,
            epoch=epoch,
        )


def training_plan(config: RunConfig, split: SampleSplit, ranks: Ranks) -> Plan:
    """Return this rank's plan of the training samples.

    Raises
    ------
    InputError
        If the batch cannot be divided among the ranks, or leaves one sample to a batch norm.
    """
    batch = config.optim.batch
    if batch % ranks.world:
        raise InputError(
            what="a batch that cannot be divided evenly",
            where="optim.batch",
            got=f"{batch} for {ranks.world} processes",
            expected=f"a multiple of {ranks.world}",
            cure="set optim.batch, which is the sum over all processes",
        )
    plan = Plan(
        split.train,
        config.crop,
        config.augment,
        batch=batch // ranks.world,
        shuffle=True,
        sampling=config.sampling,
        seed=config.seed,
        rank=ranks.rank,
        world=ranks.world,
    )
    _check_batch_norm(config, plan.epoch_size, ranks)
    return plan


def new_model(
    cache: Cache, config: RunConfig, split: SampleSplit, *, device: torch.device, ranks: Ranks
) -> ModelBundle:
    """Return the untrained model of a run: the same seed gives the same weights on every rank."""
    torch.manual_seed(config.seed)
    prior = with_floor(weighted_prior(split.train_severity))
    bundle = ModelBundle(config, build_model(config).to(device), prior, cache.voxel_config)
    if shares_batch_norms(config, ranks, device):
        # Torch's own converter drops the activations inside timm's batch norms of EfficientNets.
        convert_sync_batchnorm(bundle.model)  # type: ignore[no-untyped-call]
    if config.compile:
        bundle.model.compile()
    torch.manual_seed(config.seed + OTHER_SEED * ranks.rank)
    return bundle


def shares_batch_norms(config: RunConfig, ranks: Ranks, device: torch.device) -> bool:
    """Tell whether batch norms use the statistics of all processes' samples.

    Then every process has to call every batch norm. With studies it may not: the studies of one
    process may lack the series of an encoder, and the other processes would wait forever.
    """
    return ranks.world > 1 and device.type == "cuda" and config.sample != "study"


def place(
    cache: Cache,
    config: RunConfig,
    split: SampleSplit,
    device: torch.device,
    *,
    tier: Tier,
    draw: Draw,
    threads: int,
    ranks: Ranks,
) -> Placement:
    """Choose where the volumes of both sides of a split lie, and where their pixels are rendered.

    All ranks take the first one's choice: their free memory differs, and all must render alike.
    """
    rows = sorted({*split.train.rows, *split.held_out.rows})
    choice = choose_placement(
        cache, rows, device, tier=tier, draw=draw, threads=threads, augment=config.augment
    )
    return ranks.gather(choice)[0]


def _check_batch_norm(config: RunConfig, n_samples: int, ranks: Ranks) -> None:
    """Refuse batch norm in the head where a batch would hold one sample: it has no variance."""
    smallest = smallest_part(config, n_samples, world=ranks.world)
    if config.model.head == "rsna2022" and config.model.norm == "batch" and smallest == 1:
        raise InputError(
            what="batch norm with a single series in a batch",
            where="model.norm",
            got=f"{n_samples} series in batches of {config.optim.batch}",
            expected="two or more in every batch",
            cure="set model.norm to layer or none, or another optim.batch",
        )
