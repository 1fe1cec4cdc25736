"""What files say of their contrast and their patient, and how to part those that differ.

One UID may hold a T1 and a T2, the echoes of one acquisition, the pictures of a Dixon or, where an
archive joined studies, two patients. What is blank says nothing: it differs from nobody, unless
there are several to choose from.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import pydicom

from lumbar.pipeline.dicom.elements import hint, raw_value_of, text, texts

CONTRAST_TAGS = (
    "SeriesDescription",
    "ImageType",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
)
PATIENT_TAGS = ("PatientID", "PatientName", "PatientBirthDate")

ECHO_TIME_SHARE, LEAST_ECHO_TIME_MS = 0.02, 0.2
"""Echo times are two if they differ by more than this share of the shorter one, and by so much."""

INVERSION_TIME_SHARE, LEAST_INVERSION_TIME_MS = 0.05, 5.0

REPETITION_TIME_FACTOR = 2.0
"""Repetition times are two only if so far apart: triggered by the pulse they vary in a series."""

_COMPONENTS = {
    "P": "phase", "PHASE": "phase", "PHASE MAP": "phase", "R": "real", "REAL": "real",
    "I": "imaginary", "IMAGINARY": "imaginary", "W": "water", "WATER": "water", "F": "fat",
    "FAT": "fat", "IP": "in phase", "IN_PHASE": "in phase", "OP": "opposed phase",
    "OPP_PHASE": "opposed phase", "OUT_PHASE": "opposed phase", "FF": "fat fraction",
    "FAT_FRACTION": "fat fraction", "ADC": "adc", "EADC": "eadc", "TRACEW": "trace", "FA": "fa",
    "SUB": "subtraction", "PROJECTION IMAGE": "projection",
}  # fmt: skip
"""Values of ImageType, from the third on, that say what a picture shows of the signal."""

SUFFIX = re.compile(r"-[0-9a-f]{8}$")
"""What the ids of series and studies end in whose UID stands for several; no UID has a dash."""

Item = TypeVar("Item")


class Contrast(NamedTuple):
    """What tells apart the series that share a UID; "" and None say nothing."""

    description: str
    component: str
    echo_time_ms: float | None
    repetition_time_ms: float | None
    inversion_time_ms: float | None


class Patient(NamedTuple):
    """PatientID, without one the name; and the date of birth."""

    name: str
    birth_date: str


class Said(NamedTuple):
    """What a file says beside its UIDs of whose it is."""

    patient: Patient
    contrast: Contrast


def read_contrast(dataset: pydicom.Dataset) -> Contrast:
    """Return what a file says of its contrast; nothing in it is required."""
    no_kinds: tuple[str, ...] = ()
    kinds = _read(texts, dataset, "ImageType", no_kinds)[2:]
    return Contrast(
        " ".join(_read(text, dataset, "SeriesDescription", "").casefold().split()),
        " ".join(sorted({_COMPONENTS[kind] for kind in kinds if kind in _COMPONENTS})),
        _read(hint, dataset, "EchoTime", None) or None,
        _read(hint, dataset, "RepetitionTime", None) or None,
        _read(hint, dataset, "InversionTime", None) or None,
    )


def read_patient(dataset: pydicom.Dataset) -> Patient:
    """Return whose a file is, "" where it does not say."""
    name = _read(text, dataset, "PatientName", "").rstrip("^ ").casefold()
    number = _read(text, dataset, "PatientID", "")
    return Patient(number or name, _read(text, dataset, "PatientBirthDate", ""))


def _read(
    read: Callable[[pydicom.Dataset, str], Item],
    dataset: pydicom.Dataset,
    keyword: str,
    nothing: Item,
) -> Item:
    """Read an element; a damaged one says nothing, whatever the parser raises."""
    try:
        return read(dataset, keyword)
    except Exception:
        return nothing  # the edge of one element: the file may do without it


def part_by_contrast(contrasts: Sequence[Contrast]) -> list[str]:
    """Return what tells each file's series from the others, "" for all where they are one."""
    labels = _refine([""] * len(contrasts), [c.description for c in contrasts], _part_texts, "")
    labels = _refine(labels, [c.component for c in contrasts], _part_components, "")
    labels = _refine(labels, [c.echo_time_ms for c in contrasts], _part_echo_times, "TE ")
    labels = _refine(labels, [c.repetition_time_ms for c in contrasts], _part_repetition, "TR ")
    return _refine(labels, [c.inversion_time_ms for c in contrasts], _part_inversion, "TI ")


def part_by_patient(patients: Sequence[Patient]) -> list[str]:
    """Return which patient each file is of, "" for all where they are one."""
    labels = _refine([""] * len(patients), [p.name for p in patients], _part_texts, "")
    return _refine(labels, [p.birth_date for p in patients], _part_texts, "born ")


def rank_kinds(labels: Sequence[str], turns: Sequence[tuple[int, ...]]) -> list[str]:
    """Return the kinds of files from the most common on, of equals the first in turn."""
    counts = Counter(labels)
    first = {
        label: min(t for t, one in zip(turns, labels, strict=True) if one == label)
        for label in counts
    }
    return sorted(counts, key=lambda label: (-counts[label], first[label]))


def find_spokesman(contrasts: Sequence[Contrast], labels: Sequence[str], kind: str) -> int:
    """Return which file speaks for a series: of a kind, the first of those that say most."""
    members = [number for number, label in enumerate(labels) if label == kind]
    return max(members, key=lambda number: sum(map(bool, contrasts[number])))


def split_ids(uid: str, labels: Sequence[str]) -> list[str]:
    """Return the id of each file's series or study: its UID, and for all but one kind a suffix.

    The kind of most files has the plain UID, of equals the first by what tells it. The suffix is
    made from that too, so that it is the same wherever the files lie and whatever they are called.
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
    """Return the UID of an id that `split_ids` made."""
    return SUFFIX.sub("", series_or_study_id)


def count_labels(labels: Iterable[str]) -> str:
    """Return how many files each label has, for a person to read."""
    counts = Counter(labels)
    return "; ".join(f"{counts[label]} of {label or 'none named'}" for label in sorted(counts))


def _refine(
    labels: Sequence[str],
    values: Sequence[Item],
    part: Callable[[list[Item]], list[str]],
    prefix: str,
) -> list[str]:
    """Part each label's files by one more value; labels grow where they are parted."""
    refined = list(labels)
    for label in set(labels):
        members = [number for number, one in enumerate(labels) if one == label]
        parts = part([values[number] for number in members])
        for number, found in zip(members, parts, strict=True):
            if any(parts):
                added = f"{prefix}{found}" if found else "none"
                refined[number] = f"{label}, {added}" if label else added
    return refined


def _part_texts(values: list[str]) -> list[str]:
    """Return the texts if two of them differ."""
    return values if len(set(values) - {""}) > 1 else [""] * len(values)


def _part_components(values: list[str]) -> list[str]:
    """Return the components if they differ: a picture that names none is the magnitude."""
    if len(set(values)) == 1:
        return [""] * len(values)
    return [value or "magnitude" for value in values]


def _part_echo_times(values: list[float | None]) -> list[str]:
    def is_other(short: float, long: float) -> bool:
        return long - short > max(ECHO_TIME_SHARE * short, LEAST_ECHO_TIME_MS)

    return _part_numbers(values, is_other)


def _part_repetition(values: list[float | None]) -> list[str]:
    return _part_numbers(values, lambda short, long: long >= REPETITION_TIME_FACTOR * short)


def _part_inversion(values: list[float | None]) -> list[str]:
    def is_other(short: float, long: float) -> bool:
        return long - short > max(INVERSION_TIME_SHARE * short, LEAST_INVERSION_TIME_MS)

    return _part_numbers(values, is_other)


def _part_numbers(
    values: list[float | None], is_other: Callable[[float, float], bool]
) -> list[str]:
    """Part numbers where the next greater one is another; each part is called by its least."""
    known = sorted({value for value in values if value is not None})
    names: dict[float | None, str] = {None: ""}
    if known:
        names[known[0]] = f"{known[0]:g}"
    for short, long in pairwise(known):
        names[long] = f"{long:g}" if is_other(short, long) else names[short]
    return _part_texts([names[value] for value in values])


def are_alike(datasets: Sequence[pydicom.Dataset], keywords: Sequence[str]) -> bool:
    """Tell, without decoding their texts, if data sets say the same in some elements."""
    first = _raw(datasets[0], keywords) if datasets else []
    return all(_raw(dataset, keywords) == first for dataset in datasets[1:])


def _raw(dataset: pydicom.Dataset, keywords: Sequence[str]) -> list[Any]:
    return [raw_value_of(dataset, keyword) for keyword in keywords]
