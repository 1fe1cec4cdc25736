"""Folds by patient, each with a similar share of moderate and severe findings; seeded.

Greedy: the patients with the rarest findings go first, each to the fold that lacks them most. After
Sechidis, Tsoumakas, Vlahavas: On the stratification of multi-label data (2011), with fixed sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lumbar.cache.errors import InputError
from lumbar.cache.labels import Severities
from lumbar.cache.names import GROUP_CELLS, SEVERITIES


def _as_text(value: object) -> object:
    """Turn a number into its text: study ids are digits, which TOML and JSON read as numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


StudyId = Annotated[str, BeforeValidator(_as_text)]


class SplitConfig(BaseModel):
    """Studies go to ``folds`` folds, all of a patient to one; ``fold`` is held out.

    Training leaves out ``exclude_studies``, and ``exclude_cells`` such as
    ``123/spinal_canal_stenosis_l1_l2``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(5, ge=2)
    fold: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)
    exclude_studies: tuple[StudyId, ...] = ()
    exclude_cells: tuple[str, ...] = ()


def folds(
    study_ids: Sequence[str],
    severities: Severities,
    *,
    n_folds: int,
    seed: int,
    patients: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Return the fold, from 0, of every study; all studies of a patient go to one fold.

    ``patients`` has the patient of those studies that share one. Where none does, the sizes of the
    folds differ by one at most. The result does not depend on the order of the studies.

    Raises
    ------
    InputError
        If there are fewer than two folds or fewer patients than folds.
    """
    if len(set(study_ids)) != len(study_ids):
        raise InputError(what="studies to split", got="an id twice", expected="every study once")
    shared = patients or {}
    of_patient: dict[str, list[int]] = {}
    for row in sorted(range(len(study_ids)), key=study_ids.__getitem__):
        of_patient.setdefault(shared.get(study_ids[row], study_ids[row]), []).append(row)
    n = len(of_patient)
    if not 2 <= n_folds <= n:
        who = "studies" if n == len(study_ids) else f"patients with {len(study_ids)} studies"
        raise InputError(
            what="number of folds", got=f"{n_folds} for {n} {who}", expected="2 to one per patient"
        )
    n_studies = len(study_ids)
    sizes = np.array([n_studies // n_folds + (f < n_studies % n_folds) for f in range(n_folds)])
    rows = list(of_patient.values())
    counts = np.stack([finding_counts(severities[of_one]).sum(axis=0) for of_one in rows])
    held = np.array([len(of_one) for of_one in rows])
    parts = _assign(counts, held, sizes, np.random.default_rng(seed))
    return {
        study_ids[row]: part for part, of_one in zip(parts, rows, strict=True) for row in of_one
    }


def _assign(
    counts: Float64[np.ndarray, "n findings"],
    studies: Int64[np.ndarray, " n"],
    sizes: Int64[np.ndarray, " parts"],
    rng: np.random.Generator,
) -> list[int]:
    """Return the fold of every patient; ``sizes`` are the studies that fit in each fold.

    A patient with more studies than fit in any fold goes to the one with most room.
    """
    shuffled = [int(i) for i in rng.permutation(len(counts))]
    wanted = counts.sum(axis=0) * (sizes / sizes.sum())[:, None]
    scale = np.maximum(wanted, 1e-9)
    room = sizes.copy()
    held = np.zeros_like(wanted)
    parts = [0] * len(counts)
    rarity = _rarity(counts)
    # Patients with more studies go first, while there is room for them. The sort is stable, so
    # patients of equal rarity stay in the shuffled order.
    for patient in sorted(shuffled, key=lambda i: (studies[i], rarity[i]), reverse=True):
        gain = ((wanted - held) / scale * counts[patient]).sum(axis=1)
        gain[room < min(studies[patient], room.max())] = -np.inf
        best = np.flatnonzero(gain == gain.max())
        part = int(best[np.argmax((room / sizes)[best])])
        parts[patient] = part
        held[part] += counts[patient]
        room[part] -= studies[patient]
    return parts


def finding_counts(severities: Severities) -> Float64[np.ndarray, "n findings"]:
    """Count each study's moderate and severe cells in each group of conditions."""
    columns = [
        (severities[:, cells] == SEVERITIES.index(severity)).sum(axis=1)
        for cells in GROUP_CELLS.values()
        for severity in ("moderate", "severe")
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def _rarity(counts: Float64[np.ndarray, "n findings"]) -> list[float]:
    """Return each patient's greatest share of all findings of a kind: rare findings give most."""
    return list((counts / np.maximum(counts.sum(axis=0), 1)).max(axis=1))
