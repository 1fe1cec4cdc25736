"""Study and series: the ids of files by their headers, compared with the name of their folder."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pydicom

from lumbar.pipeline.dicom.elements import text
from lumbar.pipeline.reject import Reason, RejectedError

_MOST_NAMED = 3

SUFFIX = re.compile(r"-[0-9a-f]{8}$")
"""How the id of a series or study ends that shares its UID with others; no UID has a dash."""


class Identity(NamedTuple):
    """StudyInstanceUID and SeriesInstanceUID of a file, "" for an absent one."""

    study_uid: str
    series_uid: str

    def __str__(self) -> str:
        return f"study {self.study_uid or 'none'}, series {self.series_uid or 'none'}"

    def agrees_with(self, other: Identity) -> bool:
        """Tell if two files may belong to one series: UIDs that both have are equal."""
        pairs = zip(self, other, strict=True)
        return all(mine == theirs or not mine or not theirs for mine, theirs in pairs)


def split_ids(uid: str, labels: Sequence[str]) -> list[str]:
    """Return the id of each file's series or study: its UID, with a suffix for all but one label.

    The most frequent label has the plain UID; of equals, the first in order. The suffix is a hash
    of UID and label, so it does not depend on the places and names of the files.
    """
    counts = Counter(labels)
    plain = min(counts, key=lambda label: (-counts[label], label))
    return [
        uid
        if label == plain
        else f"{uid}-{hashlib.sha256(f'{uid}|{label}'.encode()).hexdigest()[:8]}"
        for label in labels
    ]


def shared_uid(series_or_study_id: str) -> str:
    """Return the UID in an id of `split_ids`."""
    return SUFFIX.sub("", series_or_study_id)


def find_identities(datasets: Sequence[pydicom.Dataset | None]) -> list[Identity | None]:
    """Return the identity of each file; None for no data set and for one without any UID."""
    found = [None if dataset is None else _read_identity(dataset) for dataset in datasets]
    return [identity if identity is not None and any(identity) else None for identity in found]


def _read_identity(dataset: pydicom.Dataset) -> Identity | None:
    try:
        return Identity(text(dataset, "StudyInstanceUID"), text(dataset, "SeriesInstanceUID"))
    except Exception:
        return None  # the edge of one file: a damaged element makes the parser raise anything


def choose_identity(
    identities: Sequence[Identity | None], study_id: str, series_id: str
) -> Identity | None:
    """Return the identity of more than half of the files, else the one that names the folder.

    None if no file has an identity.

    Raises
    ------
    RejectedError
        If there is neither: the series of the files is unknown.
    """
    counts = Counter(one for one in identities if one is not None)
    if not counts:
        return None
    agreeing = {
        one: sum(counts[other] for other in counts if other.agrees_with(one)) for one in counts
    }
    most = {one for one in counts if 2 * agreeing[one] > counts.total()}
    # An identity with one UID gives way to an agreeing one with both.
    most -= {
        one for one in most if not all(one) and any(all(o) and o.agrees_with(one) for o in most)
    }
    named = {one for one in most or counts if is_named_by(one, study_id, series_id)}
    for candidates in (most, named):
        if len(candidates) == 1:
            return candidates.pop()
    if named:
        return max(sorted(named), key=lambda one: (all(one), counts[one]))
    found = "; ".join(f"{counts[one]} of {one}" for one in sorted(counts)[:_MOST_NAMED])
    raise RejectedError(Reason.OTHER_SERIES, f"no series that most files name: {found}")


def choose_patient(patients: Sequence[str]) -> str:
    """Return the patient of more than half of the files; "" is a patient without a name.

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
    """Tell if the ids of study and series are the UIDs of a file, or the last parts of them.

    The data set's SeriesInstanceUID is ``<study>.<series>``, its folder ``<series>``. The id of a
    series that shares its UID with others is that UID with a suffix.
    """
    names = shared_uid(study_id), shared_uid(series_id)
    return all(
        not uid or uid == name or uid.endswith(f".{name}")
        for uid, name in zip(identity, names, strict=True)
    )
