"""The Optuna study of a sweep, in a storage that outlives the sweep's processes."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from lumbar.cache.errors import InputError, LumbarError
from lumbar.cache.store import Cache
from lumbar.train.sweep.config import Choices, Distribution, FloatRange, IntRange, SweepConfig

STORAGE = "sweep.db"
SQLITE_WAIT_SECONDS = 60
"""Several processes write to one SQLite file in turn."""

DESCRIPTION = "sweep"
"""The study's attribute that describes what is compared."""


def open_study(
    config: SweepConfig, cache: Cache, folder: Path, *, storage: str | None, name: str
) -> optuna.Study:
    """Open the study of a sweep, or start it.

    Raises
    ------
    InputError
        If the storage cannot be opened, or holds a sweep of this name that is another one.
    """
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    logging.getLogger("optuna").setLevel(logging.WARNING)
    url = storage or f"sqlite:///{folder / STORAGE}"
    try:
        study = optuna.create_study(
            storage=_connect(url),
            study_name=name,
            direction="minimize",
            pruner=_pruner(config),
            load_if_exists=True,
        )
    # A driver that is not installed, a server that is not there, a file that is no database.
    except (ImportError, SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise InputError(
            what="storage that cannot be opened",
            where=shown_url(url),
            got=str(error).splitlines()[0],
            expected="a URL of SQLAlchemy, such as postgresql://user@host/sweeps",
            cure="start its server, install its driver, or leave --storage out",
        ) from error
    _check_same(study, config, cache)
    return study


def _connect(url: str) -> optuna.storages.RDBStorage:
    options = {"timeout": SQLITE_WAIT_SECONDS} if make_url(url).drivername == "sqlite" else {}
    return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": options})


def shown_url(url: str) -> str:
    """Return a storage's URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "--storage"


@contextmanager
def storage_errors(url: str | None) -> Iterator[None]:
    """Turn a storage that fails on the way into a `LumbarError`."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise LumbarError(
            what="the sweep's storage fails",
            where=STORAGE if url is None else shown_url(url),
            got=str(error).splitlines()[0],
            expected="a database that answers",
            cure="run the same command again when it does: it resumes the sweep",
        ) from error


def _pruner(config: SweepConfig) -> optuna.pruners.BasePruner:
    match config.pruner:
        case "median":
            return optuna.pruners.MedianPruner(
                n_startup_trials=config.prune_after_trials,
                # Steps are epochs from 1: this is the first that a trial may end with.
                n_warmup_steps=config.prune_after_epochs,
            )
        case "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=config.prune_after_epochs,
                max_resource=max(config.most_epochs, config.prune_after_epochs),
            )
        case "none":
            return optuna.pruners.NopPruner()
        case _:
            assert_never(config.pruner)


def make_sampler(config: SweepConfig, number: int, *, storage: str | None) -> BaseSampler:
    """Return the sampler of a trial, seeded by its number.

    So a sweep that was stopped resumes as if it was not, and no two processes sample the same
    values. On several machines trials may start at once, so the seed depends on the machine too.
    """
    machine = 0 if storage is None else zlib.crc32(socket.gethostname().encode())
    seed = int(np.random.SeedSequence((config.seed, number, machine)).generate_state(1)[0])
    match config.sampler:
        case "random":
            return RandomSampler(seed)
        case "tpe":
            return TPESampler(seed=seed)
        case _:
            assert_never(config.sampler)


def distributions(config: SweepConfig) -> dict[str, BaseDistribution]:
    """Return what is searched as Optuna's distributions, by dotted key."""
    return {key: _distribution(value) for key, value in config.search.items()}


def _distribution(value: Distribution) -> BaseDistribution:
    match value:
        case FloatRange(bounds=(low, high)):
            return FloatDistribution(low, high, log=value.log)
        case IntRange(bounds=(low, high)):
            return IntDistribution(low, high, log=value.log, step=value.step)
        case Choices():
            return CategoricalDistribution(tuple(value.by_label))


def _check_same(study: optuna.Study, config: SweepConfig, cache: Cache) -> None:
    """Note what is compared, or raise `InputError` where the study compares something else."""
    wanted = {
        "series": config.series,
        "run": config.run,
        "search": {
            key: value.model_dump(mode="json", by_alias=True)
            for key, value in config.search.items()
        },
        "cache": fingerprint(cache),
    }
    # As a storage gives it back: tuples are lists there.
    wanted = json.loads(json.dumps(wanted, default=str))
    if DESCRIPTION not in study.user_attrs:
        study.set_user_attr(DESCRIPTION, wanted)
    held = study.user_attrs[DESCRIPTION]
    other = [part for part in wanted if held.get(part) != wanted[part]]
    if other:
        raise InputError(
            what="a sweep of this name is there, and is another one",
            where=study.study_name,
            got=f"another {' and '.join(other)}",
            expected="the same series, [run], [search] and cache as at its start",
            cure="put them back, or name another folder by --out",
        )


def fingerprint(cache: Cache) -> str:
    """Return what tells caches apart: their series, their labels and their preprocessing."""
    told = hashlib.sha256(json.dumps(cache.voxel_config, sort_keys=True, default=str).encode())
    for table in (cache.series.select("study_id", "series_id", "series_type"), cache.labels):
        told.update(table.write_csv().encode())
    return told.hexdigest()[:16]
