"""What a run would do and need; nothing is trained and nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lumbar.cache.names import SERIES_TYPES
from lumbar.cache.store import Cache
from lumbar.train.reader.placement import Draw, Tier, stored_bytes
from lumbar.train.run.config import RunConfig
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.learnable import check_batch_norms, check_labels
from lumbar.train.run.network import Network, build_model
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.setup import place, training_plan

FLOAT_BYTES = 4
COPIES = 4
"""Per trained weight: itself, its gradient and AdamW's two averages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a run of a configuration comes to on a cache.

    Bytes are those of the device: ``weight_bytes`` with gradients, AdamW's averages and the moving
    average; ``sample_bytes`` are what the network keeps of one sample for its gradient, measured on
    the CPU; ``image_bytes`` the pixels of a batch, ``volume_bytes`` the volumes that are loaded to
    it. What a framework such as CUDA takes for itself comes to that.
    """

    config: RunConfig
    cache: str
    train_samples: int
    held_out_samples: int
    train_studies: int
    held_out_studies: int
    steps: int
    parameters: int
    at_once: int
    weight_bytes: int
    sample_bytes: int
    image_bytes: int
    volume_bytes: int
    placement: str

    @property
    def total_bytes(self) -> int:
        """The memory that training needs at once."""
        return (
            self.weight_bytes
            + self.at_once * self.sample_bytes
            + self.image_bytes
            + self.volume_bytes
        )


def dry_run(
    cache: Cache,
    config: RunConfig,
    *,
    device: torch.device,
    threads: int,
    tier: Tier = "auto",
    draw: Draw = "auto",
) -> DryRun:
    """Describe a run without training; the backbone's weights are not loaded.

    Raises
    ------
    InputError
        As `lumbar.train.trainer.loop.train` before its first step.
    """
    split = split_samples(cache, config)
    check_labels(config, split)
    plan = training_plan(config, split, Ranks())
    network = build_model(config, weights=False)
    check_batch_norms(network, config, plan)
    placement = place(
        cache, config, split, device, tier=tier, draw=draw, threads=threads, ranks=Ranks()
    )
    images = example_inputs(config)[0]
    at_once = -(-min(plan.batch, plan.epoch_size) // config.optim.accumulate)
    pixel_bytes = 2 if config.bfloat16 else FLOAT_BYTES
    return DryRun(
        config=config,
        cache=str(cache.root),
        train_samples=plan.epoch_size,
        held_out_samples=len(split.held_out),
        train_studies=len(set(split.train.study_id)),
        held_out_studies=len(split.held_out_severity),
        steps=plan.steps,
        parameters=sum(p.numel() for p in network.parameters()),
        at_once=at_once,
        weight_bytes=weight_bytes(network, config),
        sample_bytes=kept_bytes(network, config),
        image_bytes=images.numel() * pixel_bytes * min(plan.batch, plan.epoch_size),
        volume_bytes=stored_bytes(cache, placement.rows) if placement.tier == "device" else 0,
        placement=placement.why,
    )


def weight_bytes(network: Network, config: RunConfig) -> int:
    """Return the bytes of weights, gradients and averages, all of float32."""
    every = sum(p.numel() for p in network.parameters())
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    averaged = every if config.optim.ema else 0
    return FLOAT_BYTES * (every + (COPIES - 1) * learning + averaged)


def kept_bytes(network: Network, config: RunConfig) -> int:
    """Return the bytes that a forward pass of one whole sample keeps for its gradient."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.eval()  # a batch of one has no batch statistics; what is kept is as large
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16),
    ):
        network(*example_inputs(config))
    return sum(kept.values())


def example_inputs(config: RunConfig) -> tuple[torch.Tensor, ...]:
    """Return the inputs of one sample whose slices are all there: `SeriesClassifier.forward`'s."""
    crop, types = config.crop, [SERIES_TYPES.index(t) for t in config.series_types]
    n = (1, len(types)) if config.sample == "study" else (1,)
    return (
        torch.zeros(*n, crop.slices, 1, crop.height, crop.width),
        torch.ones(*n, crop.slices, dtype=torch.bool),
        torch.linspace(0, 1, crop.slices).expand(*n, -1),
        torch.full(n, crop.slices),
        torch.tensor(types).reshape(n),
        torch.zeros(1, dtype=torch.int64) if config.sample == "disc" else torch.full((1,), -1),
    )
