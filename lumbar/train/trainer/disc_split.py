"""The discs of a disc run: its locator is trained first, and finds the discs of held-out series."""

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
from lumbar.train.run.checkpoint import load_document
from lumbar.train.trainer.events import LocatorTrained
from lumbar.train.trainer.setup import Setup

LOCATOR = "locator.pt"


def locate_held_out(
    setup: Setup,
) -> Generator[LocatorEpoch | LocatorTrained, None, tuple[Setup, Samples]]:
    """Return the setup with the run's locator, and the discs that it finds in held-out series.

    The locator is trained unless the run's folder holds it. The discs to train on lie where they
    are annotated; held-out ones lie where they are located, as in prediction.

    Raises
    ------
    InputError
        If too few discs of the training studies have annotated points.
    FormatError
        If the run's locator is damaged.
    """
    path = setup.run / LOCATOR
    if not path.exists() and setup.ranks.is_first:
        buffer = io.BytesIO()
        torch.save((yield from _train(setup)).state(), buffer)
        write_atomically(path, buffer.getvalue())
    setup.ranks.wait()
    locator = _load(path)
    rows = setup.split.held_out.rows
    places = locate(setup.cache, rows, locator, device=setup.device, threads=setup.threads)
    yield LocatorTrained(place_error(setup.cache, rows, places))
    setup = replace(setup, bundle=replace(setup.bundle, locator=locator))
    return setup, Samples.of_places(setup.cache, rows, places)


def _train(setup: Setup) -> Generator[LocatorEpoch, None, Locator]:
    events = train_locator(
        setup.cache,
        setup.split.train.rows,
        setup.config.locator,
        device=setup.device,
        threads=setup.threads,
        seed=setup.config.seed,
    )
    for event in events:
        if isinstance(event, Locator):
            return event
        yield event
    message = "the training of a locator ends with it"
    raise AssertionError(message)


def _load(path: Path) -> Locator:
    kind = {
        "what": "locator of a run",
        "expected": "the locator that `lumbar train` wrote",
        "cure": "remove it: it is trained again",
    }
    document = load_document(path, **kind)
    try:
        return Locator.from_state(document)
    except Exception as error:  # a damaged file may hold anything
        raise FormatError(where=path, got=f"{type(error).__name__}: {error}", **kind) from error
