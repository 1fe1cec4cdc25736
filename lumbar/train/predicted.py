"""Predictions of studies in memory, and the two kinds of file that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from lumbar.cache.errors import InputError


@dataclass(frozen=True, slots=True)
class Predicted:
    """Probabilities of the severities of the 25 cells of every study, each study once.

    ``training_prior`` is that of the studies from which each study's prediction was learnt, None
    where nothing tells them; ``by_prior`` are the cells in which it stands in for a model, none of
    them where it is None.
    """

    study_ids: tuple[str, ...]
    probabilities: Float64[np.ndarray, "n 25 3"]
    training_prior: Float64[np.ndarray, "n 25 3"] | None = None
    by_prior: Bool[np.ndarray, "n 25"] | None = None

    def of(self, study_ids: Sequence[str]) -> Predicted:
        """Return the predictions of some of the studies, in their order."""
        row_of = {study_id: row for row, study_id in enumerate(self.study_ids)}
        rows = [row_of[study_id] for study_id in study_ids]
        return Predicted(
            tuple(study_ids),
            self.probabilities[rows],
            None if self.training_prior is None else self.training_prior[rows],
            self.stands_in[rows],
        )

    @property
    def stands_in(self) -> Bool[np.ndarray, "n 25"]:
        """The cells in which the training prior stands in for a model, as far as it is known."""
        if self.by_prior is not None:
            return self.by_prior
        return np.zeros(self.probabilities.shape[:2], bool)


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
    priors = [table.training_prior for table in tables]
    known = [prior for prior in priors if prior is not None]
    return Predicted(
        tuple(seen),
        np.concatenate([table.probabilities for table in tables]),
        np.concatenate(known) if len(known) == len(priors) else None,
        np.concatenate([table.stands_in for table in tables]),
    )
