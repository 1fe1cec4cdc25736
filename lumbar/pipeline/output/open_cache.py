"""Open the output folder: check what it holds, and read what the previous run left in it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lumbar.cache.errors import FormatError, InputError, MissingError
from lumbar.cache.files.lock import LOCK
from lumbar.cache.format import CACHE_FILE, REJECTED_TABLE, TABLE_SCHEMAS, VOLUMES
from lumbar.cache.index import find_volumes
from lumbar.cache.patients import Groups
from lumbar.cache.tables import (
    PATIENTS_FILE,
    SOURCES_FILE,
    config_hash,
    is_as_written,
    is_scratch,
    read_cache_file,
    read_table,
    write_cache_file,
)
from lumbar.cache.volumes import METADATA, SCRATCH, crc32c, ensure_group, read_attributes
from lumbar.pipeline.reject import Reason, Rejection
from lumbar.pipeline.series.convert import SeriesResult
from lumbar.pipeline.source.layout import Split
from lumbar.pipeline.source.shard import Shard

KnownRejections = dict[tuple[str, str], list[Rejection]]
"""The rejections of a finished run, by series."""


@dataclass(frozen=True, slots=True)
class PreviousRun:
    """The rows of the previous run; its tables agree with each other if it ``is_finished``.

    ``patients`` has the studies of each patient who has several, as far as that run knew.
    """

    rejections: KnownRejections = field(default_factory=dict)
    is_finished: bool = False
    patients: Groups = ()


FOUND_ANEW = {Reason.NO_FILES, Reason.WRONG_PLACE}
"""Reasons that every run finds by itself, before it reads a series."""

_log = logging.getLogger(__name__)


def check_folder(out: Path, settings: dict[str, Any]) -> None:
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
        _read_description(out, settings)  # a foreign file of this name is refused
    elif found:
        raise InputError(
            what="the output folder is neither empty nor a cache",
            where=out,
            got=", ".join(found[:5]),
            expected=f"an empty folder, or one with {CACHE_FILE}",
            cure="name another --out",
        )


def check_origin(
    out: Path, settings: dict[str, Any], split: Split | None, shard: Shard | None
) -> None:
    """Raise `InputError` if there is a cache of another configuration, split or shard."""
    if (out / CACHE_FILE).exists() and is_as_written(out):
        document = read_cache_file(out)
        _check_settings(out, document, settings)
        _check_source(out, document, split, None if shard is None else str(shard))


def open_cache(
    out: Path,
    settings: dict[str, Any],
    split: Split | None,
    shard: Shard | None,
    *,
    overwrite: bool,
) -> PreviousRun:
    """Prepare a cache for a run; return the rows of the previous run if it was finished.

    ``cache.json`` is written first, and its counts at the end, so that a stopped run still has its
    configuration.

    Raises
    ------
    InputError
        Unless ``overwrite``, if it has another configuration, split or shard.
    """
    before = PreviousRun()
    shard_name = None if shard is None else str(shard)
    if (out / CACHE_FILE).exists():
        if overwrite:
            _clear(out)
        elif (document := _read_description(out, settings)) is not None:
            _check_settings(out, document, settings)
            _check_source(out, document, split, shard_name)
            if document["counts"]:
                _drop_damaged_tables(out, document)
                groups = document.get("source", {}).get("patients", ())
                patients = tuple(tuple(group) for group in groups)
                before = PreviousRun(_read_known(out), is_finished=True, patients=patients)
    _sweep(out)
    write_cache_file(out, config=settings, counts={}, split=split, shard=shard_name)
    ensure_group(out / VOLUMES)  # a cache of nothing is a cache, to readers of Zarr too
    return before


def _read_description(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return ``cache.json``; None if it is damaged and the volumes have these settings.

    Raises
    ------
    FormatError
        If it is damaged or foreign, and no volume has these settings.
    """
    if not is_as_written(out) and _has_volume_of(out, settings):
        _log.warning("%s is damaged and is made anew from the volumes", out / CACHE_FILE)
        return None
    return read_cache_file(out)


def _has_volume_of(out: Path, settings: dict[str, Any]) -> bool:
    """Tell whether the first readable volume was made with these settings."""
    for key in find_volumes(out):
        try:
            attributes = read_attributes(out, *key)
        except FormatError:
            continue
        return attributes is not None and attributes.config_hash == config_hash(settings)
    return False


def _drop_damaged_tables(out: Path, document: dict[str, Any]) -> None:
    """Remove tables whose bytes have changed since they were written."""
    for name, expected in document.get("tables_crc32c", {}).items():
        path = out / name
        if path.exists() and crc32c(path.read_bytes()) != expected:
            _log.warning("%s is damaged and is made anew", path)
            path.unlink()


def known_rejections(
    known: KnownRejections, results: Iterable[SeriesResult], vanished: Iterable[tuple[str, str]]
) -> list[Rejection]:
    """Return the rows of a run: its own, and the known rows of volumes that are kept.

    A volume is kept if its series was not decoded again or has ``vanished`` from the source.
    """
    rejections: list[Rejection] = []
    for result in results:
        rejections.extend(result.rejections)
        if result.cached and result.has_left_out:
            rejections.extend(known[result.key])
    for key in vanished:
        rejections.extend(known.get(key, []))
    return rejections


def tidy_volumes(out: Path) -> None:
    """Remove the folders of studies without a volume, and the scratch folder."""
    studies = {study_id for study_id, _ in find_volumes(out)}
    for study in (out / VOLUMES).glob("*/"):
        if study.name not in studies:
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


def _check_source(
    out: Path, document: dict[str, Any], split: Split | None, shard: str | None
) -> None:
    """Refuse a cache of another split or shard; early versions recorded neither."""
    stored = {"split": split, "shard": None} | document.get("source", {})
    for name, got in (("split", split), ("shard", shard)):
        if stored[name] != got:
            raise InputError(
                what=f"the cache was made from another {name}",
                where=out,
                got=_name(name, got),
                expected=_name(name, stored[name]),
                cure=f"name the same --{name} or another --out, or --overwrite to make it anew",
            )


def _name(what: str, value: str | None) -> str:
    if value is None:
        return "a bare tree without a split" if what == "split" else "the whole source"
    return f"{what} {value}"


def _read_known(out: Path) -> KnownRejections:
    known: KnownRejections = {}
    try:
        table = read_table(out, REJECTED_TABLE)
    except (FormatError, MissingError) as error:
        _log.warning("%s: series with rejected files are decoded again", error)
        return known
    for row in table.iter_rows(named=True):
        rejection = Rejection.from_row(row)
        if rejection.reason not in FOUND_ANEW:
            known.setdefault((rejection.study_id, rejection.series_id), []).append(rejection)
    return known


def _clear(out: Path) -> None:
    """Remove everything a cache holds, its description last."""
    shutil.rmtree(out / VOLUMES, ignore_errors=True)
    for name in (*TABLE_SCHEMAS, SOURCES_FILE, PATIENTS_FILE, CACHE_FILE):
        (out / name).unlink(missing_ok=True)


def _sweep(out: Path) -> None:
    """Remove the temporary files of a killed run."""
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    volumes = out / VOLUMES
    for aside in (
        *(path for path in out.iterdir() if is_scratch(path.name)),
        *volumes.glob(f".{METADATA}.*"),
        *volumes.glob(f"*/.{METADATA}.*"),
    ):
        aside.unlink()
