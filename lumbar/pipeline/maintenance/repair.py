"""Repair the damage that `lumbar.cache.verify` finds, and only that, from the DICOM files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lumbar.cache.errors import FormatError, InputError
from lumbar.cache.files.lock import locked
from lumbar.cache.format import CACHE_FILE
from lumbar.cache.index import find_volumes
from lumbar.cache.tables import (
    PATIENTS_FILE,
    SOURCES_FILE,
    config_hash,
    is_as_written,
    read_cache_file,
)
from lumbar.cache.verify import DAMAGED_GROUP, Problem, verify
from lumbar.cache.volumes import ensure_group, read_attributes, volume_folder
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.events import Event
from lumbar.pipeline.preprocess import preprocess
from lumbar.pipeline.source.shard import Shard


def find_problems(cache: Path) -> list[Problem]:
    """Return the problems of a cache; an unreadable description is one problem."""
    try:
        return [event for event in verify(cache) if isinstance(event, Problem)]
    except FormatError as error:
        if is_as_written(cache):
            raise  # the format of another version, not damage
        where = str(cache / CACHE_FILE)
        return [Problem("the description cannot be read", where, str(error), "repair it")]


def repair(cache: Path, src: Path, problems: list[Problem], *, workers: int) -> Iterator[Event]:
    """Remove the damaged parts and preprocess again with the cache's own options.

    Sound volumes are not decoded again.

    Raises
    ------
    InputError
        If the description is damaged and the volumes were made with options other than the default.
    LumbarError
        As `lumbar.pipeline.preprocess.preprocess`.
    """
    description = _read_description(cache)
    config = _find_config(cache, description)
    source = description.get("source", {}) if is_as_written(cache) else {}
    shard = source.get("shard")
    with locked(cache):
        _remove_damaged(cache, problems)
    yield from preprocess(
        src,
        cache,
        config,
        workers=workers,
        split=source.get("split"),
        shard=None if shard is None else Shard.parse(shard),
    )


def _read_description(cache: Path) -> dict[str, Any]:
    try:
        return read_cache_file(cache)
    except FormatError:
        return {}


def _find_config(cache: Path, description: dict[str, Any]) -> PreprocessConfig:
    """Return the configuration of the volumes: the described one, or the default."""
    stored = _stored_hash(cache)
    candidates = [description.get("config", {}), {}, {"profile": "archive"}]
    for values in candidates:
        try:
            config = PreprocessConfig(**values)
        except (TypeError, ValidationError):
            continue
        found = config_hash(config.model_dump(mode="json"))
        if found == stored or (stored is None and is_as_written(cache)):
            return config
    raise InputError(
        what="the description is damaged, and the volumes were made with options of their own",
        where=cache / CACHE_FILE,
        got=f"volumes of configuration {stored}",
        cure="run `lumbar preprocess` with the options that made the cache: it puts this right",
    )


def _stored_hash(cache: Path) -> str | None:
    for key in find_volumes(cache):
        try:
            attributes = read_attributes(cache, *key)
        except FormatError:
            continue
        if attributes is not None:
            return attributes.config_hash
    return None


def _remove_damaged(cache: Path, problems: list[Problem]) -> None:
    """Remove damaged volumes and write damaged groups again; preprocess writes the tables."""
    for problem in problems:
        if problem.volume is not None:
            shutil.rmtree(volume_folder(cache, *problem.volume), ignore_errors=True)
        elif problem.what == DAMAGED_GROUP:
            ensure_group(Path(problem.where).parent, anew=True)
        elif problem.where in {str(cache / name) for name in (SOURCES_FILE, PATIENTS_FILE)}:
            Path(problem.where).unlink(missing_ok=True)
