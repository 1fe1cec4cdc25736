"""Check that a run finds the data that it was trained on, and find its cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lumbar.cache.errors import InputError, LumbarError, MissingError
from lumbar.cache.store import Cache
from lumbar.train.run.config import read_config
from lumbar.train.run.data import TRAIN, RunData, read_run_data
from lumbar.train.run.folder import CONFIG, runs_in
from lumbar.train.run.split import split_samples

USUAL = Path("cache")
"""The cache where neither the command nor a run names one."""

_log = logging.getLogger(__name__)


def check_unchanged(run: Path, now: RunData, *, warn_unknown: bool = True) -> None:
    """Raise `InputError` where what a run reads of its cache is not what it was when it started.

    A run without such a record cannot be checked; ``warn_unknown`` warns of that.
    """
    recorded = read_run_data(run)
    if recorded is None:
        if warn_unknown and read_run_data(run.parent) is None:
            _log.warning(
                "%s was started before runs recorded what they read: whether %s is as it was then "
                "cannot be checked; from now on it is",
                run,
                now.cache,
            )
        return
    changes = recorded.changes_to(now)
    if changes:
        raise _another(run, recorded, now.cache, changes)


def cache_of(named: Sequence[Path], cache: Path | None) -> Path:
    """Return the cache to use with some runs, or files of them: their own, or one of the same data.

    A ``cache`` that the caller names has to hold what the runs read. The runs' own cache is used
    even if it has changed since, because labels may be corrected; a warning tells what has changed.

    Raises
    ------
    MissingError, InputError
        If the runs' cache is gone, they have different ones, or the named one is another.
    """
    known = list(_recorded(named))
    roots = _caches(known)
    if cache is None and len(roots) > 1:
        raise InputError(
            what="runs of different caches",
            where=", ".join(str(run) for run, _ in known),
            got=" and ".join(map(str, roots)),
            expected="runs of one cache",
            cure="name runs of one cache, or by --cache one that holds what all of them read",
        )
    chosen = cache or (roots[0] if roots else USUAL)
    if roots and cache is None and not chosen.is_dir():
        raise _gone(known[0][0], chosen)
    for run, data in known:
        _check(run, data, chosen)
    return chosen


def recorded_cache(run: Path) -> Path | None:
    """Return the cache that a run recorded; None without a record.

    Raises
    ------
    MissingError
        If that cache is gone.
    """
    data = read_run_data(run)
    if data is not None and not data.cache.is_dir():
        raise _gone(run, data.cache)
    return None if data is None else data.cache


def caches_of(named: Sequence[Path]) -> list[Path]:
    """Return the caches that some runs read, each once, as far as they recorded it."""
    return _caches(_recorded(named))


def trained_studies(named: Sequence[Path]) -> set[str]:
    """Return the studies that one of some runs was trained on, as far as they recorded it."""
    return {
        study_id
        for _, data in _recorded(named)
        for study_id, of in data.studies.items()
        if of.side == TRAIN
    }


def _caches(known: Iterable[tuple[Path, RunData]]) -> list[Path]:
    return list(dict.fromkeys(data.cache for _, data in known))


def _recorded(named: Sequence[Path]) -> Iterator[tuple[Path, RunData]]:
    """Yield the runs that some folders or files belong to, and what they read."""
    for path in runs_in([path if path.is_dir() else path.parent for path in named]):
        data = read_run_data(path) if (path / CONFIG).is_file() else None
        if data is not None:
            yield path, data


def _check(run: Path, recorded: RunData, chosen: Path) -> None:
    cache = Cache(chosen)
    try:
        now = RunData.of(cache, split_samples(cache, read_config(run / CONFIG)))
        changes = recorded.changes_to(now)
    except LumbarError as error:
        changes = [str(error)]
    if not changes:
        return
    if chosen.resolve() != recorded.cache:
        raise _another(run, recorded, chosen, changes)
    _log.warning("%s has changed since %s was trained on it: %s", chosen, run, "; ".join(changes))


def _gone(run: Path, cache: Path) -> MissingError:
    return MissingError(
        what="the cache of the run is not there",
        where=cache,
        got="no such folder",
        expected=f"what {run} was trained on",
        cure="name it by --cache where it lies now",
    )


def _another(run: Path, recorded: RunData, cache: Path, changes: Sequence[str]) -> InputError:
    same_place = cache.resolve() == recorded.cache
    return InputError(
        what="the cache has changed since the run was started"
        if same_place
        else "the cache is not the one that the run was trained on",
        where=run,
        got=f"{cache}: {', '.join(changes)}",
        expected="the cache as it was" if same_place else recorded.cache,
        cure="put it back as it was, or train another run on it"
        if same_place
        else "name that one by --cache, or none: then it is taken",
    )
