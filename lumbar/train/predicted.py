"""Predictions of studies in memory, and the two kinds of file that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lumbar.cache.errors import InputError


@dataclass(frozen=True, slots=True)
class Predicted:
    """Probabilities of the severities of the 25 cells of every study, each study once."""

    study_ids: tuple[str, ...]
    probabilities: Float64[np.ndarray, "n 25 3"]

    def of(self, study_ids: Sequence[str]) -> Float64[np.ndarray, "n 25 3"]:
        """Return the probabilities of some of the studies, in their order."""
        row_of = {study_id: row for row, study_id in enumerate(self.study_ids)}
        return self.probabilities[[row_of[study_id] for study_id in study_ids]]


def join(tables: Sequence[Predicted], files: Sequence[Path]) -> Predicted:
    """Put the studies of several files together.

    Raises
    ------
    InputError
        If two files predict the same study: nothing says which of them is right.
    """
    seen: dict[str, Path] = {}
    for table, file in zip(tables, files, strict=True):
        for study_id in table.study_ids:
            if study_id in seen:
                raise InputError(
                    what="a study is predicted in two files",
                    where=file,
                    got=f"study {study_id}, which {seen[study_id]} has too",
                    expected="files of different studies, such as those of several folds",
                    cure="evaluate each alone, name runs to average them, or use --against",
                )
            seen[study_id] = file
    return Predicted(tuple(seen), np.concatenate([table.probabilities for table in tables]))
