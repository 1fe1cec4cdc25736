"""``.sources``: sizes and times of the source files, so that an unchanged one need not be read.

Times differ from machine to machine, so this file is not part of the bytes that a cache
reproduces. No reader needs it; without it the next run reads every file once.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import polars as pl

from lumbar.cache.errors import FormatError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.tables import SOURCES_FILE
from lumbar.cache.volumes import crc32c

SOURCES_SCHEMA = pl.Schema(
    {
        "study_id": pl.String(),
        "series_id": pl.String(),
        "premises": pl.String(),
        "has_left_out": pl.Boolean(),
        "metadata_crc32c": pl.UInt32(),
        "chunk_nbytes": pl.Int64(),
        "paths": pl.List(pl.String()),
        "nbytes": pl.List(pl.Int64()),
        "modified_ns": pl.List(pl.Int64()),
        "changed_ns": pl.List(pl.Int64()),
    }
)
"""One row a series: what else its volume was made from, what was stored, and its files."""

_SEAL = b"lumbar sources 1 %08x\n"
_SEAL_LENGTH = len(_SEAL % 0)


def write_sources(cache: Path, table: pl.DataFrame) -> None:
    """Write the file: a line with the CRC-32C of the rest, which is Parquet."""
    buffer = BytesIO()
    table.write_parquet(buffer)
    data = buffer.getvalue()
    write_atomically(cache / SOURCES_FILE, _SEAL % crc32c(data) + data)


def read_sources(cache: Path) -> pl.DataFrame:
    """Read the file; no rows where there is none.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    path = cache / SOURCES_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return pl.DataFrame(schema=SOURCES_SCHEMA)
    seal, data = content[:_SEAL_LENGTH], content[_SEAL_LENGTH:]
    expected = _SEAL % crc32c(data)
    if seal != expected:
        raise _damaged(path, got=seal[:_SEAL_LENGTH], expected=expected)
    table = pl.read_parquet(data)
    if table.schema != SOURCES_SCHEMA:
        raise _damaged(path, got=table.columns, expected=SOURCES_SCHEMA.names())
    return table


def _damaged(path: Path, *, got: object, expected: object) -> FormatError:
    return FormatError(
        what="record of the sources",
        where=path,
        got=got,
        expected=expected,
        cure="remove the file: the next run reads every source once and writes it again",
    )
