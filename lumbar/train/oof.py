"""``oof.parquet``: out-of-fold predictions, one row a study, ``study_id`` and 75 columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.names import N_CELLS, N_SEVERITIES, TARGET_COLUMNS
from lumbar.train.predicted import Predicted


def read_oof(path: Path) -> Predicted:
    """Read predictions in Parquet: ``study_id`` as text and 75 float columns, one row a study.

    Raises
    ------
    MissingError, InputError
        If there is no such file, or its columns are others, or a study comes twice.
    """
    try:
        table = pl.read_parquet(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingError(
            what="no such file",
            where=path,
            got="nothing",
            expected="the held-out predictions of a run",
            cure="name a run's folder; the file is there after its first epoch",
        ) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            what="predictions that cannot be read",
            where=path,
            got=error,
            expected="a Parquet file",
            cure="train again: the file is damaged",
        ) from error
    floats = {name for name, kind in table.schema.items() if kind.is_float()}
    if table.schema.get("study_id") != pl.String or floats != set(TARGET_COLUMNS):
        missing = sorted({"study_id", *TARGET_COLUMNS} - set(table.columns))
        raise InputError(
            what="columns of predictions",
            where=path,
            got=f"{len(table.columns)} columns, missing {missing[:4]}",
            expected="study_id as text and the 75 target columns as floats",
        )
    twice = table.filter(pl.col("study_id").is_duplicated())
    if twice.height:
        raise InputError(
            what="a study is predicted twice",
            where=path,
            got=twice["study_id"][0],
            expected="one row a study",
        )
    values = table.select(TARGET_COLUMNS).to_numpy().astype(np.float64)
    study_ids = tuple(table["study_id"].to_list())
    return Predicted(study_ids, values.reshape(-1, N_CELLS, N_SEVERITIES))
