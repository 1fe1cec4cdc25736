"""Whose files are they? What the headers of a folder say of study and series, against its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pydicom

from lumbar.pipeline.elements import text


class Identity(NamedTuple):
    """StudyInstanceUID and SeriesInstanceUID of a file, "" where it names none."""

    study_uid: str
    series_uid: str

    def __str__(self) -> str:
        return f"study {self.study_uid or 'none'}, series {self.series_uid or 'none'}"

    def agrees_with(self, other: Identity) -> bool:
        """Tell if two files may be of one series: where both name something, they name the same."""
        pairs = zip(self, other, strict=True)
        return all(mine == theirs or not mine or not theirs for mine, theirs in pairs)


def find_identities(datasets: Sequence[pydicom.Dataset | None]) -> list[Identity | None]:
    """Return what each file calls itself; None for one that is no data set or says nothing."""
    found = []
    for dataset in datasets:
        said = None if dataset is None else _read_identity(dataset)
        found.append(said if said is not None and any(said) else None)
    return found


def _read_identity(dataset: pydicom.Dataset) -> Identity | None:
    try:
        return Identity(text(dataset, "StudyInstanceUID"), text(dataset, "SeriesInstanceUID"))
    except Exception:
        # The edge of one file: a damaged element says nothing, whatever the parser raises.
        return None


def choose_identity(
    identities: Sequence[Identity | None], study_id: str, series_id: str
) -> Identity | None:
    """Return what most files call themselves; of equals, the one that the folder names."""
    counts = Counter(one for one in identities if one is not None)
    ranked = sorted(
        counts, key=lambda one: (-counts[one], not is_named_by(one, study_id, series_id), one)
    )
    return ranked[0] if ranked else None


def is_named_by(identity: Identity, study_id: str, series_id: str) -> bool:
    """Tell if a study's and a series' ids are those of a file, or the last parts of them.

    The data set's SeriesInstanceUID is ``<study>.<series>``, its folder ``<series>``.
    """
    return all(
        not uid or uid == name or uid.endswith(f".{name}")
        for uid, name in zip(identity, (study_id, series_id), strict=True)
    )
