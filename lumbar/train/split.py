"""Splits by study, with moderate and severe findings spread evenly; pure and seeded.

Greedy: the studies with the rarest findings go first, each to the part that lacks them most. After
Sechidis, Tsoumakas, Vlahavas: On the stratification of multi-label data (2011), with fixed sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lumbar.cache.errors import InputError
from lumbar.cache.labels import Severities
from lumbar.cache.names import SEVERITIES
from lumbar.train.metric import GROUP_CELLS


def _as_text(value: object) -> object:
    """Take a number for the text that it is written as: ids of studies look like numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


StudyId = Annotated[str, BeforeValidator(_as_text)]


class SplitConfig(BaseModel):
    """Studies are dealt into ``folds`` parts; part ``fold`` is held out.

    ``exclude_studies``, and ``exclude_cells`` such as ``123/spinal_canal_stenosis_l1_l2``, are not
    trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(5, ge=2)
    fold: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)
    exclude_studies: tuple[StudyId, ...] = ()
    exclude_cells: tuple[str, ...] = ()


def folds(
    study_ids: Sequence[str], severities: Severities, *, n_folds: int, seed: int
) -> dict[str, int]:
    """Return the fold, from 0, of every study; sizes differ by one at most.

    The result depends on the studies, their labels and the seed, not on the order of the rows.

    Raises
    ------
    InputError
        If there are fewer than two folds or fewer studies than folds.
    """
    n = len(study_ids)
    if not 2 <= n_folds <= n:
        raise InputError(
            what="number of folds", got=f"{n_folds} for {n} studies", expected="2 to one a study"
        )
    sizes = np.array([n // n_folds + (fold < n % n_folds) for fold in range(n_folds)])
    return _assign(study_ids, severities, sizes, np.random.default_rng(seed))


def _assign(
    study_ids: Sequence[str],
    severities: Severities,
    sizes: Int64[np.ndarray, " parts"],
    rng: np.random.Generator,
) -> dict[str, int]:
    """Return the part of every study, ``sizes[part]`` studies in each."""
    if len(set(study_ids)) != len(study_ids):
        raise InputError(what="studies to split", got="an id twice", expected="every study once")
    by_id = sorted(range(len(study_ids)), key=study_ids.__getitem__)
    by_id = [by_id[i] for i in rng.permutation(len(by_id))]
    counts = finding_counts(severities)
    wanted = counts.sum(axis=0) * (sizes / sizes.sum())[:, None]
    scale = np.maximum(wanted, 1e-9)
    room = sizes.copy()
    held = np.zeros_like(wanted)
    parts: dict[str, int] = {}
    # A stable sort, so that studies of equal rarity stay in the shuffled order.
    for study in sorted(by_id, key=_rarity(counts).__getitem__, reverse=True):
        gain = ((wanted - held) / scale * counts[study]).sum(axis=1)
        gain[room == 0] = -np.inf
        best = np.flatnonzero(gain == gain.max())
        part = int(best[np.argmax((room / sizes)[best])])
        parts[study_ids[study]] = part
        held[part] += counts[study]
        room[part] -= 1
    return parts


def finding_counts(severities: Severities) -> Float64[np.ndarray, "n findings"]:
    """Return, for each study, its moderate and its severe cells in each group of conditions."""
    columns = [
        (severities[:, cells] == SEVERITIES.index(severity)).sum(axis=1)
        for cells in GROUP_CELLS.values()
        for severity in ("moderate", "severe")
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def _rarity(counts: Float64[np.ndarray, "n findings"]) -> list[float]:
    """Return each study's share of all findings, those that are rare counting most."""
    return list((counts / np.maximum(counts.sum(axis=0), 1)).max(axis=1))
