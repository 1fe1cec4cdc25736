"""``cache.json`` and the Parquet tables: written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from lumbar import __version__
from lumbar.cache.errors import FormatError, InputError, MissingError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.format import CACHE_FILE, FORMAT_VERSION, TABLE_SCHEMAS, check_version
from lumbar.cache.volumes import crc32c

SOURCES_FILE = ".sources"
"""The record of `lumbar.cache.source_records`, which is not part of what a cache reproduces."""

PATIENTS_FILE = ".patients"
"""The record of `lumbar.cache.patients`, which no reader needs."""

_SCRATCH_NAME = re.compile(
    r"\.("
    + "|".join(map(re.escape, (CACHE_FILE, SOURCES_FILE, PATIENTS_FILE, *TABLE_SCHEMAS)))
    + r")\.[0-9]+"
)
_FIRST_KEYS = {"format_version", "lumbar_version", "config", "config_hash", "source", "counts"}
"""Keys of a ``cache.json`` without a checksum of itself, beside those of the tables."""


def is_scratch(name: str) -> bool:
    """Tell whether a file in a cache's folder is an unfinished one of `write_atomically`."""
    return _SCRATCH_NAME.fullmatch(name) is not None


def config_hash(config: dict[str, Any]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a configuration's canonical JSON.

    The profile ``fast`` is left out: a configuration without a profile means it.
    """
    named = {key: value for key, value in config.items() if (key, value) != ("profile", "fast")}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_record(path: Path, data: bytes) -> None:
    """Write `SOURCES_FILE` or `PATIENTS_FILE`: a line with the CRC-32C of the data, then these."""
    write_atomically(path, _checksum_line(path, data) + data)


def read_record(path: Path, *, cure: str) -> bytes | None:
    """Return the data of a record, None where there is none; `FormatError` if it is damaged."""
    try:
        line, newline, data = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    expected = _checksum_line(path, data)
    if line + newline != expected:
        got, written = "bytes that were not written so", "what `lumbar preprocess` wrote"
        what = f"record of the {path.name.removeprefix('.')}"
        raise FormatError(what=what, where=path, got=got, expected=written, cure=cure)
    return data


def _checksum_line(path: Path, data: bytes) -> bytes:
    return f"lumbar {path.name.removeprefix('.')} 1 {crc32c(data):08x}\n".encode()


def write_table(cache: Path, name: str, table: pl.DataFrame) -> None:
    """Write one of the cache's tables, columns in the order of its schema.

    Raises
    ------
    FormatError
        If its columns or their types differ from the schema.
    """
    _check_columns(table, name, where=cache / name)
    buffer = BytesIO()
    table.select(TABLE_SCHEMAS[name].names()).write_parquet(buffer)
    write_atomically(cache / name, buffer.getvalue())


def read_table(cache: Path, name: str) -> pl.DataFrame:
    """Read one of the cache's tables; raise `FormatError` where its columns differ."""
    path = cache / name
    try:
        # As bytes: polars would read "[" or "*" in a folder's name as a pattern.
        table = pl.read_parquet(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingError(
            what="the cache lacks a table",
            where=path,
            got="no such file",
            expected="a cache whose preprocessing came to its end",
            cure="run `lumbar preprocess` again: it goes on where it was stopped",
        ) from error
    except pl.exceptions.PolarsError as error:
        raise FormatError(
            what="table of a cache",
            where=path,
            got=error,
            expected="a Parquet file",
            cure="run `lumbar preprocess` again",
        ) from error
    _check_columns(table, name, where=path)
    return table


def _check_columns(table: pl.DataFrame, name: str, *, where: Path) -> None:
    """Raise `FormatError` unless columns and types, in any order, are those of a table."""
    differing = sorted(set(table.schema.items()) ^ set(TABLE_SCHEMAS[name].items()), key=str)
    if differing:
        raise FormatError(
            what="columns of a table",
            where=where,
            got=f"these differ: {differing[:4]}",
            expected=f"those of cache format {FORMAT_VERSION}",
            cure="run `lumbar preprocess` again",
        )


def write_cache_file(
    cache: Path,
    *,
    config: dict[str, Any],
    counts: dict[str, int],
    split: str | None = None,
    studies: Sequence[str] = (),
    shard: str | None = None,
    patients: Sequence[Sequence[str]] | None = None,
) -> None:
    """Write ``cache.json``: versions, the resolved configuration, its hash, counts, checksums.

    ``split`` is None for a bare tree; ``studies`` are those of the source, cached or not. ``shard``
    names the part of the source that this cache holds, None for the whole. ``patients`` are the
    studies of each patient who has several, None where patients were not compared.
    """
    present = [name for name in TABLE_SCHEMAS if (cache / name).exists()]
    document = {
        "format_version": FORMAT_VERSION,
        "lumbar_version": __version__,
        "config": config,
        "config_hash": config_hash(config),
        "source": {"split": split, "studies": sorted(studies)}
        | ({} if shard is None else {"shard": shard})
        | ({} if patients is None else {"patients": [sorted(group) for group in patients]}),
        "counts": counts,
        "tables_crc32c": {name: crc32c((cache / name).read_bytes()) for name in present},
    }
    sealed = document | {"crc32c": crc32c(_to_text(document))}
    write_atomically(cache / CACHE_FILE, _to_text(sealed))


def _to_text(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"


def is_as_written(cache: Path) -> bool:
    """Tell whether ``cache.json`` is unchanged, by its checksum; without one, by its form."""
    text = (cache / CACHE_FILE).read_bytes()
    try:
        document = json.loads(text)
    except ValueError:
        return False
    if not isinstance(document, dict) or text != _to_text(document):
        return False
    if "crc32c" not in document:
        return document.keys() <= _FIRST_KEYS | {"tables_crc32c"}
    return bool(document.pop("crc32c") == crc32c(_to_text(document)))


def read_cache_file(cache: Path) -> dict[str, Any]:
    """Read ``cache.json``; what a format 1 cache may lack, ``source`` and checksums, is empty.

    Raises
    ------
    MissingError, InputError, FormatError
        If the folder is absent, is no cache, or is of another format.
    """
    if not cache.is_dir():
        raise MissingError(
            what="no such cache folder",
            where=cache,
            got="a file" if cache.exists() else "nothing",
            expected="a folder that `lumbar preprocess` made",
            cure="make one with `lumbar preprocess --src DICOM_FOLDER --out CACHE_FOLDER`",
        )
    path = cache / CACHE_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            what="this folder is not a cache",
            where=cache,
            got=f"no {CACHE_FILE} in it",
            expected="a folder that `lumbar preprocess` made",
            cure="name another folder or run `lumbar preprocess`",
        ) from error
    except ValueError as error:
        raise FormatError(
            what="description of a cache",
            where=path,
            got=error,
            expected="the JSON that `lumbar preprocess` wrote",
            cure="preprocess again into another folder",
        ) from error
    check_version(
        document.get("format_version") if isinstance(document, dict) else None, where=path
    )
    missing = sorted({"config", "config_hash", "counts"} - document.keys())
    if missing:
        raise FormatError(
            what="description of a cache",
            where=path,
            got=f"no {', '.join(missing)}",
            expected="what `lumbar preprocess` writes",
            cure="name another folder",
        )
    return {"source": {}, "tables_crc32c": {}, **document}
