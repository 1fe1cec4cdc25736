"""Whose files are they? What the headers of a folder say of study and series, against its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pydicom

from lumbar.pipeline.dicom.contrast import shared_uid
from lumbar.pipeline.dicom.elements import text
from lumbar.pipeline.reject import Reason, RejectedError

_MOST_NAMED = 3


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
    """Return what more than half of the files call themselves, else what the folder is called.

    None where no file says anything.

    Raises
    ------
    RejectedError
        If neither is: whose files they are cannot be known.
    """
    counts = Counter(one for one in identities if one is not None)
    if not counts:
        return None
    agreeing = {
        one: sum(counts[other] for other in counts if other.agrees_with(one)) for one in counts
    }
    most = {one for one in counts if 2 * agreeing[one] > counts.total()}
    # One that leaves a part open gives way to one that names it.
    most -= {
        one for one in most if not all(one) and any(all(o) and o.agrees_with(one) for o in most)
    }
    named = {one for one in most or counts if is_named_by(one, study_id, series_id)}
    for candidates in (most, named):
        if len(candidates) == 1:
            return candidates.pop()
    if named:
        return max(sorted(named), key=lambda one: (all(one), counts[one]))
    said = "; ".join(f"{counts[one]} of {one}" for one in sorted(counts)[:_MOST_NAMED])
    raise RejectedError(Reason.OTHER_SERIES, f"no series that most files name: {said}")


def choose_patient(patients: Sequence[str]) -> str:
    """Return the patient of more than half of the files; "" stands for one that is not named.

    Raises
    ------
    RejectedError
        If there is none.
    """
    counts = Counter(patients)
    first, count = counts.most_common(1)[0]
    if 2 * count > counts.total():
        return first
    raise RejectedError(Reason.OTHER_SERIES, f"{len(counts)} patients, none of them of most files")


def is_named_by(identity: Identity, study_id: str, series_id: str) -> bool:
    """Tell if a study's and a series' ids are those of a file, or the last parts of them.

    The data set's SeriesInstanceUID is ``<study>.<series>``, its folder ``<series>``. A series that
    shares its UID with others has that UID and a suffix.
    """
    names = shared_uid(study_id), shared_uid(series_id)
    return all(
        not uid or uid == name or uid.endswith(f".{name}")
        for uid, name in zip(identity, names, strict=True)
    )
