"""Checks of a reader's arguments: the plan, the cache, types and numbers."""

from __future__ import annotations

import numpy as np
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import ABSENT, Samples

DTYPES = torch.float32, torch.bfloat16, torch.float16


def check_dtype(dtype: torch.dtype) -> None:
    """Raise `InputError` for a type that images cannot have."""
    if dtype not in DTYPES:
        raise InputError(
            what="type of the images",
            got=dtype,
            expected=f"one of {', '.join(map(str, DTYPES))}",
            cure="choose one of them and convert the images afterwards",
        )


def check_numbers(*, threads: int, prefetch: int) -> None:
    """Raise `InputError` for less than one thread or prefetched batch."""
    for name, number in (("threads", threads), ("prefetch", prefetch)):
        if number < 1:
            raise InputError(
                what=f"{name} of a reader", got=number, expected="1 or more", cure="set it to more"
            )


def check_start(plan: Plan, epoch: int, step: int) -> None:
    """Raise `InputError` for a plan without samples, or a step outside of its epochs."""
    if plan.steps == 0:
        raise InputError(
            what="no samples to read",
            where="the plan",
            got="none",
            expected="one or more",
            cure="choose another series type; discs need a cache that was preprocessed with the "
            "CSV file of coordinates",
        )
    if epoch < 0 or not 0 <= step < plan.steps:
        raise InputError(
            what="no such step",
            where="the plan",
            got=f"epoch {epoch}, step {step}",
            expected=f"an epoch from 0 on and a step from 0 to {plan.steps - 1}",
            cure="start at the `next_step` of a reader of the same plan, batch and ranks",
        )


def check_samples(cache: Cache, samples: Samples) -> None:
    """Raise `InputError` where samples were taken from another cache."""
    table = cache.series
    shapes = table.select("depth", "height", "width").rows()
    of_cache = dict(enumerate(zip(table["study_id"], shapes, strict=True)))
    for index, slot in np.argwhere(samples.row != ABSENT):
        row = int(samples.row[index, slot])
        study_id, shape = samples.study_id[index], tuple(samples.shape[index, slot].tolist())
        if of_cache.get(row) != (study_id, shape):
            raise InputError(
                what="the samples were taken from another cache",
                where=cache.root,
                got=f"row {row} of study {study_id}, {shape}",
                expected="study {}, {}".format(*of_cache.get(row, ("none", "no such row"))),
                cure="make the samples from the cache that is read",
            )


def stored_dtype(cache: Cache, rows: list[int]) -> str:
    """Return the stored type of all rows; raise `InputError` if there are several."""
    found = sorted(set(cache.series["dtype"][rows]))
    if len(found) > 1:
        raise InputError(
            what="series of several stored types in one reader",
            where=cache.root,
            got=", ".join(found),
            expected="one type",
            cure="preprocess them into one cache with one --dtype",
        )
    return str(found[0])
