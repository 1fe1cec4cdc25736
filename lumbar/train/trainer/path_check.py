"""The check of a run's own first batch, before a step is taken on it."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.reader.verify_pixels import WrongPixelsError
from lumbar.train.reader.volumes import Volumes
from lumbar.train.trainer.setup import Job

BACKLOG_CYCLES = 200_000_000
"""Clock cycles that the GPU is kept busy before the batch is asked for, about a tenth of a second:
what reads memory too early finds it unwritten."""

_log = logging.getLogger(__name__)


def checked(job: Job, volumes: Volumes, *, tier: Tier, draw: Draw) -> Job:
    """Return the job as it may go on after its first batch was compared with the host's pixels.

    On the CPU nothing is read: its pass is what others are compared with. Where a GPU gives other
    pixels and ``tier`` and ``draw`` leave the choice, the job returned has its volumes on disk and
    draws on the CPU, and a warning says so. Of several ranks all do what one of them has to.

    Raises
    ------
    WrongPixelsError
        If the pixels are wrong, be it on another rank, and nothing else may be chosen.
    """
    if job.device.type == "cpu":
        return job
    error = _wrong_pixels(job, volumes)
    told = job.ranks.gather(None if error is None else str(error))
    wrong = [f"rank {rank}: {words}" for rank, words in enumerate(told) if words is not None]
    if not wrong:
        return job
    if job.placement.draw == "cpu" or tier == "device" or draw == "gpu":
        raise error or WrongPixelsError(what="another process read wrong pixels", got=wrong[0])
    if job.ranks.is_first:
        words = wrong[0] if job.ranks.world > 1 else error
        _log.warning("%s. This run goes on with --tier disk --draw cpu.", words)
    why = "volumes on disk, rendered on the CPU: the GPU gave other pixels than the host"
    return replace(job, placement=replace(job.placement, tier="disk", draw="cpu", why=why))


def _wrong_pixels(job: Job, volumes: Volumes) -> WrongPixelsError | None:
    """Read the first batch behind a busy GPU; return what is wrong with it."""
    try:
        with job.reader(job.plan, volumes) as reader:
            # The kernel runs on the current device, which need not be this run's.
            with torch.cuda.device(job.device):
                torch.cuda._sleep(BACKLOG_CYCLES)  # type: ignore[no-untyped-call]
            next(reader.epoch())
    except WrongPixelsError as error:
        return error
    return None
