"""The labels table as severity indices, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Int8, UInt8

from lumbar.cache.format import LABELS_SCHEMA
from lumbar.cache.names import KNOWN_COLUMNS, N_CELLS, N_SEVERITIES, TARGET_COLUMNS

UNKNOWN = -1
"""The severity index of an empty cell."""

Severities = Int8[np.ndarray, "n 25"]
"""One row per study, one column per cell: 0 normal/mild, 1 moderate, 2 severe, `UNKNOWN`."""


def severities_of(labels: pl.DataFrame) -> Severities:
    """Return the severity index of every cell of a labels table, in its row order."""
    one_hot, known = label_arrays(labels)
    return np.where(known, one_hot.argmax(axis=2), UNKNOWN).astype(np.int8)


def label_arrays(
    labels: pl.DataFrame,
) -> tuple[UInt8[np.ndarray, "n 25 3"], Bool[np.ndarray, "n 25"]]:
    """Return the one-hot and the known columns of a labels table as arrays."""
    one_hot = labels.select(TARGET_COLUMNS).to_numpy().astype(np.uint8, copy=False)
    known = labels.select(KNOWN_COLUMNS).to_numpy().astype(bool, copy=False)
    return one_hot.reshape(-1, N_CELLS, N_SEVERITIES), known


def label_table(study_ids: Sequence[str], severities: Severities) -> pl.DataFrame:
    """Return the labels table, in its schema, of studies in the given order."""
    one_hot = severities[:, :, None] == np.arange(N_SEVERITIES)
    targets = one_hot.reshape(-1, len(TARGET_COLUMNS)).astype(np.uint8)
    known = severities != UNKNOWN
    columns: dict[str, object] = {"study_id": list(study_ids)}
    columns |= {name: targets[:, i] for i, name in enumerate(TARGET_COLUMNS)}
    columns |= {name: known[:, i] for i, name in enumerate(KNOWN_COLUMNS)}
    return pl.DataFrame(columns, schema=LABELS_SCHEMA)
