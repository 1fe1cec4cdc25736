"""The labels of a ``train.csv``: one row per study, one column per cell."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.labels import UNKNOWN, label_table
from lumbar.cache.names import CELLS, SEVERITY_TEXTS
from lumbar.cache.spelling import letters_of

_LINE = "line"

_log = logging.getLogger(__name__)


def read_label_csv(path: Path) -> pl.DataFrame:
    """Read a ``train.csv`` into a labels table, ordered by study; empty cells are unknown.

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If a column is missing or unknown, a study comes twice, or a cell holds another text than
        `SEVERITY_TEXTS`.
    """
    table = read_text_csv(path, columns=("study_id", *CELLS))
    _check_studies(table, path)
    known = {letters_of(text): text for text in SEVERITY_TEXTS}
    table = table.with_columns(to_known(table, cell, known, path) for cell in CELLS)
    for cell in CELLS:
        _check_texts(table, cell, path)
    table = table.sort("study_id")
    codes = dict(zip(SEVERITY_TEXTS, range(len(SEVERITY_TEXTS)), strict=True))
    severities = table.select(
        pl.col(CELLS).replace_strict(codes, default=UNKNOWN, return_dtype=pl.Int8)
    )
    return label_table(table["study_id"].to_list(), severities.to_numpy().astype(np.int8))


def to_known(table: pl.DataFrame, column: str, known: Mapping[str, str], path: Path) -> pl.Series:
    """Return a column with texts replaced by the known ones of the same letters.

    ``known`` has the texts by `letters_of`. Other texts stay. A replacement is logged.
    """
    texts = table[column]
    changed = {
        text: known[letters_of(text)]
        for text in texts.drop_nulls().unique(maintain_order=True)
        if letters_of(text) in known and text != known[letters_of(text)]
    }
    if changed:
        text, meant = next(iter(changed.items()))
        _log.warning("%s: %s: %r is taken as %r", path, column, text, meant)
    return texts.replace(changed) if changed else texts


MAX_CSV_BYTES = 2**26
"""Fifteen times the largest CSV file of the data set."""

MAX_CSV_LINES = 2**20
"""Twenty times as many as that file has: each line takes memory, even an empty one."""

MAX_HEADER_BYTES = 2**16
"""Sixty times that of ``train.csv``: each comma makes a column, and each column takes memory."""


def _read_within_bounds(path: Path) -> bytes:
    """Return the contents of a file; refuse one that could fill the memory."""
    bounds = [("bytes", path.stat().st_size, MAX_CSV_BYTES)]
    content = b""
    if path.stat().st_size <= MAX_CSV_BYTES:
        content = path.read_bytes()
        header, _, _ = content.partition(b"\n")
        bounds.append(("lines", content.count(b"\n"), MAX_CSV_LINES))
        bounds.append(("bytes in the first line", len(header), MAX_HEADER_BYTES))
    for name, found, most in bounds:
        if found > most:
            raise InputError(
                what="a CSV file too large to be one of a data set",
                where=path,
                got=f"{found} {name}",
                expected=f"at most {most}",
                cure="name another file or correct this one",
            )
    return content


def _check_utf8(content: bytes, path: Path) -> None:
    """Refuse text in another encoding, such as the UTF-16 of some spreadsheets."""
    is_utf16 = content[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in content[:4]
    try:
        content.decode()
    except UnicodeDecodeError:
        is_text = False
    else:
        is_text = not is_utf16
    if not is_text:
        raise InputError(
            what="a CSV file in another encoding than UTF-8",
            where=path,
            got="UTF-16 text" if is_utf16 else "bytes that are not UTF-8",
            expected="UTF-8 text",
            cure="save it as CSV in UTF-8",
        )


def read_text_csv(path: Path, *, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read a CSV as text, stripped, empty cells as null, and add the column ``line``.

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If it is not a CSV file, is too large, or has other columns than ``columns``, whose order
        and surrounding spaces do not matter.
    """
    try:
        content = _read_within_bounds(path)
        _check_utf8(content, path)
        # The header first: a million rows of thousands of columns would fill the memory.
        header = pl.read_csv(content.partition(b"\n")[0] + b"\n", infer_schema=False)
        _check_columns(list(map(str.strip, header.columns)), columns, path)
        table = pl.read_csv(content, infer_schema=False)
    except FileNotFoundError as error:
        raise MissingError(
            what="no such file",
            where=path,
            got="nothing",
            expected="a CSV file",
            cure="name one that is there",
        ) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            what="a CSV file that cannot be read",
            where=path,
            got=error,
            expected=f"a CSV file with the column {columns[0]}",
            cure="name another file or correct this one",
        ) from error
    table = table.rename(str.strip)
    text = pl.all().str.strip_chars()
    # The header is line 1.
    return table.select(pl.when(text != "").then(text).name.keep()).with_row_index(_LINE, offset=2)


def _check_columns(found: list[str], columns: tuple[str, ...], path: Path) -> None:
    """Refuse a header that names other columns, in any order."""
    if set(found) != set(columns):
        missing = [name for name in columns if name not in found]
        unknown = [name[:80] for name in found if name not in columns]
        raise InputError(
            what="columns of a CSV file",
            where=path,
            got=f"missing {missing[:4]}, unknown {unknown[:4]}",
            expected=f"the {len(columns)} columns {','.join(columns[:4])}"
            + (",..." if len(columns) > 4 else ""),
            cure="correct the header line",
        )


def _check_studies(table: pl.DataFrame, path: Path) -> None:
    """Refuse a row without a study and a study with two rows."""
    wrong = table.filter(pl.col("study_id").is_null() | pl.col("study_id").is_duplicated())
    if wrong.height:
        line, study_id = wrong.select(_LINE, "study_id").row(0)
        raise InputError(
            what="study_id",
            where=f"{path} line {line}",
            got="nothing" if study_id is None else f"{study_id}, which comes more than once",
            expected="one row per study",
            cure="remove or correct the row",
        )


def _check_texts(table: pl.DataFrame, cell: str, path: Path) -> None:
    """Refuse a filled cell with another text than the three severities."""
    wrong = table.filter(pl.col(cell).is_in(SEVERITY_TEXTS).not_())
    if wrong.height:
        line, text = wrong.select(_LINE, cell).row(0)
        raise InputError(
            what="unknown severity",
            where=f"{path} line {line} column {cell}",
            got=repr(text[:80]),
            expected=f"{', '.join(SEVERITY_TEXTS)} or an empty cell",
            cure="correct the cell",
        )
