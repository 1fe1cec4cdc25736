"""``labels.parquet``: 75 one-hot columns and 25 known columns a study."""

from __future__ import annotations

import polars as pl

from lumbar.cache.format import LABELS_SCHEMA
from lumbar.cache.names import CELLS, KNOWN_COLUMNS, SEVERITIES, SEVERITY_TEXTS


def make_label_table(labels: pl.DataFrame | None) -> pl.DataFrame:
    """Return the label table of `lumbar.pipeline.rsna.read_labels`, empty where there is none."""
    if labels is None:
        return pl.DataFrame(schema=LABELS_SCHEMA)
    targets = [
        (pl.col(cell) == text).fill_null(value=False).cast(pl.UInt8).alias(f"{cell}_{severity}")
        for cell in CELLS
        for severity, text in zip(SEVERITIES, SEVERITY_TEXTS, strict=True)
    ]
    known = [
        pl.col(cell).is_not_null().alias(name)
        for cell, name in zip(CELLS, KNOWN_COLUMNS, strict=True)
    ]
    return labels.select("study_id", *targets, *known)
