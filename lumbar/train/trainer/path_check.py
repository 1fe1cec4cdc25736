"""The check of a run's own first batch, before a step is taken on it."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.reader.verify_pixels import WrongPixelsError
from lumbar.train.reader.volumes import Volumes
from lumbar.train.trainer.setup import Setup

BACKLOG_CYCLES = 200_000_000
"""Clock cycles that the GPU is kept busy before the batch is read, about a tenth of a second: a
kernel that reads memory too early then finds it unwritten."""

_log = logging.getLogger(__name__)


def checked(setup: Setup, volumes: Volumes, *, tier: Tier, draw: Draw) -> Setup:
    """Return the setup to train with, after comparing its first batch with the host's pixels.

    On the CPU nothing is read: its pixels are the reference. Where a GPU gives other pixels, and
    ``tier`` and ``draw`` leave the choice, the returned setup has its volumes on disk and renders
    on the CPU, with a warning. If one rank has to do so, all do.

    Raises
    ------
    WrongPixelsError
        If the pixels are wrong, be it on another rank, and nothing else may be chosen.
    """
    if setup.device.type == "cpu":
        return setup
    error = _wrong_pixels(setup, volumes)
    messages = setup.ranks.gather(None if error is None else str(error))
    wrong = [f"rank {rank}: {message}" for rank, message in enumerate(messages) if message]
    if not wrong:
        return setup
    if setup.placement.draw == "cpu" or tier == "device" or draw == "gpu":
        raise error or WrongPixelsError(what="another process read wrong pixels", got=wrong[0])
    if setup.ranks.is_first:
        message = wrong[0] if setup.ranks.world > 1 else error
        _log.warning("%s. This run goes on with --tier disk --draw cpu.", message)
    why = "volumes on disk, rendered on the CPU: the GPU gave other pixels than the host"
    return replace(setup, placement=replace(setup.placement, tier="disk", draw="cpu", why=why))


def _wrong_pixels(setup: Setup, volumes: Volumes) -> WrongPixelsError | None:
    """Read the first batch behind a busy GPU; return what is wrong with it."""
    try:
        with setup.reader(setup.plan, volumes) as reader:
            # The kernel runs on the current device, which need not be this run's.
            with torch.cuda.device(setup.device):
                torch.cuda._sleep(BACKLOG_CYCLES)  # type: ignore[no-untyped-call]
            next(reader.epoch())
    except WrongPixelsError as error:
        return error
    return None
