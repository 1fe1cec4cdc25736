"""The discs of a disc run: its locator is trained first, and finds those that are held out."""

from __future__ import annotations

import io
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import torch

from lumbar.cache.errors import FormatError
from lumbar.cache.files.atomic import write_atomically
from lumbar.train.locator.locate import Locator, locate
from lumbar.train.locator.positions import place_error
from lumbar.train.locator.train import LocatorEpoch, train_locator
from lumbar.train.plan.samples import Samples
from lumbar.train.run.split import Split
from lumbar.train.trainer.events import LocatorTrained
from lumbar.train.trainer.setup import Job

LOCATOR = "locator.pt"


def find_discs(job: Job) -> Generator[LocatorEpoch | LocatorTrained, None, tuple[Locator, Split]]:
    """Return the locator of a run, trained unless the run has it, and the split with its discs.

    The discs to train on lie where they are annotated; those held out where the locator finds them,
    as it will be in prediction.

    Raises
    ------
    InputError
        If too few discs of the training studies have annotated points.
    """
    path = job.run / LOCATOR
    if not path.exists() and job.ranks.is_first:
        locator = yield from _train(job)
        _save(path, locator)
    job.ranks.wait()
    locator = _load(path)
    rows = job.split.held_out.rows
    places = locate(job.cache, rows, locator, device=job.device, threads=job.threads)
    yield LocatorTrained(place_error(job.cache, rows, places))
    located = Samples.of_places(job.cache, rows, places)
    return locator, replace(job.split, held_out=located)


def _train(job: Job) -> Generator[LocatorEpoch, None, Locator]:
    events = train_locator(
        job.cache,
        job.split.train.rows,
        job.config.locator,
        device=job.device,
        threads=job.threads,
        seed=job.config.seed,
    )
    for event in events:
        if isinstance(event, Locator):
            return event
        yield event
    message = "the training of a locator ends with it"
    raise AssertionError(message)


def _save(path: Path, locator: Locator) -> None:
    buffer = io.BytesIO()
    torch.save(locator.state(), buffer)
    write_atomically(path, buffer.getvalue())


def _load(path: Path) -> Locator:
    try:
        return Locator.from_state(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to call
        raise FormatError(
            what="locator of a run that cannot be read",
            where=path,
            got=f"a file that torch cannot read ({type(error).__name__})",
            expected="the locator that `lumbar train` wrote",
            cure="remove it: it is trained anew",
        ) from error
