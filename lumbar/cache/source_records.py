"""``.sources``: sizes and times of the source files, so that unchanged ones are not read again.

Times differ between machines, so this file is not among those that a second run reproduces. No
reader needs it; without it the next run reads every file once.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import polars as pl

from lumbar.cache.errors import FormatError
from lumbar.cache.tables import SOURCES_FILE, read_record, write_record

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
"""One row per series: what its volume was made from besides files, its size, and its files."""


def write_sources(cache: Path, table: pl.DataFrame) -> None:
    """Write the file: Parquet after a checksum."""
    buffer = BytesIO()
    table.write_parquet(buffer)
    write_record(cache / SOURCES_FILE, buffer.getvalue())


def read_sources(cache: Path) -> pl.DataFrame:
    """Read the file; no rows where there is none.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    cure = "remove it: the next run reads every source file once and writes it again"
    data = read_record(cache / SOURCES_FILE, cure=cure)
    if data is None:
        return pl.DataFrame(schema=SOURCES_SCHEMA)
    table = pl.read_parquet(data)
    if table.schema != SOURCES_SCHEMA:
        raise FormatError(
            what="record of the sources",
            where=cache / SOURCES_FILE,
            got=table.columns,
            expected=SOURCES_SCHEMA.names(),
            cure=cure,
        )
    return table
