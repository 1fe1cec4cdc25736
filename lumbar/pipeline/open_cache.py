"""The output folder before and after a run: whose it is, what a run before left in it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from lumbar.cache.errors import FormatError, InputError, MissingError
from lumbar.cache.format import CACHE_FILE, REJECTED_TABLE, TABLE_SCHEMAS, VOLUMES
from lumbar.cache.lock import LOCK
from lumbar.cache.tables import (
    config_hash,
    is_scratch,
    read_cache_file,
    read_table,
    write_cache_file,
)
from lumbar.cache.volumes import METADATA, SCRATCH
from lumbar.pipeline.layout import Split
from lumbar.pipeline.reject import Reason, Rejection
from lumbar.pipeline.series import SeriesResult

Known = dict[tuple[str, str], list[Rejection]]
"""The rejections of a finished run, by series."""

FOUND_ANEW = {Reason.NO_FILES, Reason.WRONG_PLACE}
"""Reasons that every run finds by itself, before it looks at a series."""

_log = logging.getLogger(__name__)


def check_folder(out: Path) -> None:
    """Raise `InputError` or `FormatError` unless the output is absent, empty or a cache."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(
            what="the output is no folder",
            where=out,
            got="a file",
            expected="a folder, which need not exist",
            cure="name another --out",
        )
    names = sorted(path.name for path in out.iterdir())
    found = [name for name in names if name != LOCK and not is_scratch(name)]
    if CACHE_FILE in found:
        read_cache_file(out)  # no other file of this name opens a folder to a run
    elif found:
        raise InputError(
            what="the output folder is neither empty nor a cache",
            where=out,
            got=", ".join(found[:5]),
            expected=f"an empty folder, or one with {CACHE_FILE}",
            cure="name another --out",
        )


def open_cache(
    out: Path, settings: dict[str, Any], split: Split | None, *, overwrite: bool
) -> Known:
    """Make a cache ready for a run; return what the run before rejected, if it was finished.

    ``cache.json`` stands from the start, with no counts until the end, so that a run that was
    stopped still knows its configuration.

    Raises
    ------
    InputError
        If it was made with another configuration or from another split, unless ``overwrite``.
    """
    known: Known = {}
    if (out / CACHE_FILE).exists():
        if overwrite:
            _clear(out)
        else:
            document = read_cache_file(out)
            _check_settings(out, document, settings)
            _check_split(out, document, split)
            known = _read_known(out) if document.get("counts") else {}
    _sweep(out)
    write_cache_file(out, config=settings, counts={}, split=split)
    return known


def read_kept(out: Path, name: str) -> pl.DataFrame | None:
    """Return a table of an earlier run where its CSV file is gone; None if it holds nothing.

    A CSV file that is not there for one run must not empty the cache.
    """
    try:
        table = read_table(out, name)
    except MissingError:
        return None
    except FormatError as error:
        _log.warning("%s: its rows are lost", error)
        return None
    if table.is_empty():
        return None
    _log.warning("no CSV file for %s: its %d rows of an earlier run stay", name, table.height)
    return table


def known_rejections(
    known: Known, results: Iterable[SeriesResult], vanished: Iterable[tuple[str, str]]
) -> list[Rejection]:
    """Return the rows of a run: its own, and those of volumes that stay as they are.

    A volume stays where its series was not decoded again or has ``vanished`` from the source.
    """
    rejections: list[Rejection] = []
    for result in results:
        rejections.extend(result.rejections)
        if result.cached and result.has_left_out:
            rejections.extend(known[result.study_id, result.series_id])
    for key in vanished:
        rejections.extend(known.get(key, []))
    return rejections


def tidy_volumes(out: Path) -> None:
    """Remove the folders of studies whose last volume is gone, and the scratch folder."""
    for study in (out / VOLUMES).glob("*/"):
        if not any(study.glob(f"*/{METADATA}")):
            shutil.rmtree(study)
    _sweep(out)


def _check_settings(out: Path, document: dict[str, Any], settings: dict[str, Any]) -> None:
    if document["config_hash"] == config_hash(settings):
        return
    stored = {"profile": "fast"} | document["config"]  # early versions have no other
    changed = sorted(
        key for key in stored.keys() | settings.keys() if stored.get(key) != settings.get(key)
    )
    raise InputError(
        what="the cache was made with another configuration",
        where=out,
        got=", ".join(f"{key} = {settings.get(key)}" for key in changed),
        expected=", ".join(f"{key} = {stored.get(key)}" for key in changed),
        cure="use the same options, another --out, or --overwrite to make it anew",
    )


def _check_split(out: Path, document: dict[str, Any], split: Split | None) -> None:
    """Compare the split with that of a cache; one of an early version does not name it."""
    stored = document.get("source", {"split": split})["split"]
    if stored != split:
        raise InputError(
            what="the cache was made from another split",
            where=out,
            got=_name(split),
            expected=_name(stored),
            cure="name the same --split or another --out, or --overwrite to make it anew",
        )


def _name(split: str | None) -> str:
    return "a bare tree without a split" if split is None else f"split {split}"


def _read_known(out: Path) -> Known:
    known: Known = {}
    try:
        table = read_table(out, REJECTED_TABLE)
    except (FormatError, MissingError) as error:
        _log.warning("%s: series with rejected files are decoded again", error)
        return known
    for row in table.iter_rows(named=True):
        rejection = Rejection(**row | {"reason": Reason(row["reason"])})
        if rejection.reason not in FOUND_ANEW:
            known.setdefault((rejection.study_id, rejection.series_id), []).append(rejection)
    return known


def _clear(out: Path) -> None:
    """Remove all that a cache holds, the description last."""
    shutil.rmtree(out / VOLUMES, ignore_errors=True)
    for name in (*TABLE_SCHEMAS, CACHE_FILE):
        (out / name).unlink(missing_ok=True)


def _sweep(out: Path) -> None:
    """Remove what a killed run wrote aside and never renamed."""
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    volumes = out / VOLUMES
    for aside in (
        *(path for path in out.iterdir() if is_scratch(path.name)),
        *volumes.glob(f".{METADATA}.*"),
        *volumes.glob(f"*/.{METADATA}.*"),
    ):
        aside.unlink()
