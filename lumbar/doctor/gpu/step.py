"""A training step in bfloat16 and the LSTM on a device, against float32 on the CPU."""

from __future__ import annotations

import torch

from lumbar.doctor.host.reading import CPU, largest_difference
from lumbar.doctor.host.training_step import TORCH_CURE, start_trainer, tiny_batches, tiny_config
from lumbar.doctor.result import CheckResult, failed, passed
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.sequence import SliceSequence

LOSS_TOLERANCE = 0.05
"""By how much of it a loss in bfloat16, which keeps 8 bits, may differ from the CPU's."""

LSTM_TOLERANCE = 0.01
"""For outputs and gradients of about 1: a GPU may multiply with 10 bits (TF32)."""

LENGTHS = (5, 1, 0, 8, 8, 3)
CHANNELS = 32


def check_bfloat16_step(device: torch.device) -> CheckResult:
    """Take the same first step on both; compare the losses, and see the weights move."""
    with tiny_batches(CPU) as batch:
        trainer = start_trainer(tiny_config(bfloat16=False), CPU)
        on_cpu = float(trainer.optimise(batch)[0])
    with tiny_batches(device) as batch:
        trainer = start_trainer(tiny_config(bfloat16=True), device)
        losses = [float(trainer.optimise(batch)[0]) for _ in range(2)]
    found = f"loss {losses[0]:.4f}, on the CPU {on_cpu:.4f}"
    # A loss that is not a number differs too.
    if not abs(losses[0] - on_cpu) <= LOSS_TOLERANCE * abs(on_cpu):
        return failed(
            f"{found}; expected within {LOSS_TOLERANCE:.0%}",
            f"train with --set bfloat16=false; {TORCH_CURE}",
        )
    if losses[1] == losses[0]:
        return failed(f"{found}: the weights do not move", TORCH_CURE)
    return passed(found)


def check_masked_lstm(device: torch.device) -> CheckResult:
    """Run an LSTM over sequences of several lengths, one empty; compare outputs and gradients."""
    features = torch.randn(
        (len(LENGTHS), max(LENGTHS), CHANNELS), generator=torch.Generator().manual_seed(0)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sequence = SliceSequence(CHANNELS, ModelConfig(hidden=16))
    here = _run_lstm(sequence, features)
    there = _run_lstm(sequence.to(device), features.to(device))
    most = largest_difference(here, there)
    found = f"differs by up to {most:.1e}"
    if most <= LSTM_TOLERANCE:
        return passed(found)
    cure = f"train with --set model.sequence=none; {TORCH_CURE}"
    return failed(f"{found}; expected at most {LSTM_TOLERANCE}", cure)


def _run_lstm(sequence: SliceSequence, features: torch.Tensor) -> list[torch.Tensor]:
    """Return the outputs where slices are, and the gradient of the features, on the host."""
    features = features.clone().requires_grad_()
    lengths = torch.tensor(LENGTHS)
    outputs = sequence(features, lengths)
    present = (torch.arange(max(LENGTHS)) < lengths[:, None]).to(outputs.device)
    kept = outputs * present[..., None]
    torch.autograd.backward(kept.square().sum())
    assert features.grad is not None
    return [kept.detach().cpu(), features.grad.cpu()]
