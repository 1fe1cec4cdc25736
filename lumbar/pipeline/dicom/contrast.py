"""The contrast and the patient of each file, and which files differ in them.

Files of one UID may be a T1 and a T2, the echoes of one acquisition, the pictures of a Dixon or, if
an archive joined studies, of two patients. An empty value agrees with any other; it is a value of
its own only where the other files have several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

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
"""Two echo times differ if they are apart by more than this share of the shorter and this time."""

INVERSION_TIME_SHARE, LEAST_INVERSION_TIME_MS = 0.05, 5.0

REPETITION_TIME_FACTOR = 2.0
"""Two repetition times differ from this ratio on: in pulse-triggered series they vary."""

_COMPONENTS = {
    "P": "phase", "PHASE": "phase", "PHASE MAP": "phase", "R": "real", "REAL": "real",
    "I": "imaginary", "IMAGINARY": "imaginary", "W": "water", "WATER": "water", "F": "fat",
    "FAT": "fat", "IP": "in phase", "IN_PHASE": "in phase", "OP": "opposed phase",
    "OPP_PHASE": "opposed phase", "OUT_PHASE": "opposed phase", "FF": "fat fraction",
    "FAT_FRACTION": "fat fraction", "ADC": "adc", "EADC": "eadc", "TRACEW": "trace", "FA": "fa",
    "SUB": "subtraction", "PROJECTION IMAGE": "projection",
}  # fmt: skip
"""Values of ImageType, from the third on, and the component of the signal that they mean."""

Item = TypeVar("Item")


class Contrast(NamedTuple):
    """The contrast of a file; "" and None where an element is absent."""

    description: str
    component: str
    echo_time_ms: float | None
    repetition_time_ms: float | None
    inversion_time_ms: float | None


class Patient(NamedTuple):
    """PatientID or, without one, PatientName; and the date of birth."""

    name: str
    birth_date: str


class Traits(NamedTuple):
    """Patient and contrast of a file: they tell series apart that share a UID."""

    patient: Patient
    contrast: Contrast


def read_contrast(dataset: pydicom.Dataset) -> Contrast:
    """Return the contrast of a file; no element is required."""
    none: tuple[str, ...] = ()
    kinds = _read(texts, dataset, "ImageType", none)[2:]
    return Contrast(
        " ".join(_read(text, dataset, "SeriesDescription", "").casefold().split()),
        " ".join(sorted({_COMPONENTS[kind] for kind in kinds if kind in _COMPONENTS})),
        _read(hint, dataset, "EchoTime", None) or None,
        _read(hint, dataset, "RepetitionTime", None) or None,
        _read(hint, dataset, "InversionTime", None) or None,
    )


def read_patient(dataset: pydicom.Dataset) -> Patient:
    """Return the patient of a file, "" for absent elements."""
    name = _read(text, dataset, "PatientName", "").rstrip("^ ").casefold()
    number = _read(text, dataset, "PatientID", "")
    return Patient(number or name, _read(text, dataset, "PatientBirthDate", ""))


def _read(
    read: Callable[[pydicom.Dataset, str], Item],
    dataset: pydicom.Dataset,
    keyword: str,
    default: Item,
) -> Item:
    """Read an element; return the default for a damaged one."""
    try:
        return read(dataset, keyword)
    except Exception:
        return default  # the edge of one element: the parser raises anything


def part_by_contrast(contrasts: Sequence[Contrast]) -> list[str]:
    """Return a label per file: files of one label are one series; all "" if there is only one."""
    labels = _refine([""] * len(contrasts), [c.description for c in contrasts], _part_texts, "")
    labels = _refine(labels, [c.component for c in contrasts], _part_components, "")
    labels = _refine(labels, [c.echo_time_ms for c in contrasts], _part_echo_times, "TE ")
    labels = _refine(labels, [c.repetition_time_ms for c in contrasts], _part_repetition, "TR ")
    return _refine(labels, [c.inversion_time_ms for c in contrasts], _part_inversion, "TI ")


def part_by_patient(patients: Sequence[Patient]) -> list[str]:
    """Return a label per file: files of one label are one patient; all "" if there is only one."""
    labels = _refine([""] * len(patients), [p.name for p in patients], _part_texts, "")
    return _refine(labels, [p.birth_date for p in patients], _part_texts, "born ")


def rank_labels(labels: Sequence[str], turns: Sequence[tuple[int, ...]]) -> list[str]:
    """Return the labels from the most frequent on; of equals, the first in turn comes first."""
    counts = Counter(labels)
    first = {
        label: min(t for t, one in zip(turns, labels, strict=True) if one == label)
        for label in counts
    }
    return sorted(counts, key=lambda label: (-counts[label], first[label]))


def most_complete(contrasts: Sequence[Contrast], labels: Sequence[str], wanted: str) -> int:
    """Return which file of a label has the most values of its contrast; of equals the first."""
    members = [number for number, label in enumerate(labels) if label == wanted]
    return max(members, key=lambda number: sum(map(bool, contrasts[number])))


def count_labels(labels: Iterable[str]) -> str:
    """Describe how many files each label has."""
    counts = Counter(labels)
    return "; ".join(f"{counts[label]} of {label or 'none named'}" for label in sorted(counts))


def _refine(
    labels: Sequence[str],
    values: Sequence[Item],
    part: Callable[[list[Item]], list[str]],
    prefix: str,
) -> list[str]:
    """Part each label's files by one more value, which is added to the labels of parted files."""
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
    """Return the texts if two of them differ, else "" for all."""
    return values if len(set(values) - {""}) > 1 else [""] * len(values)


def _part_components(values: list[str]) -> list[str]:
    """Return the components if they differ; a picture without one is the magnitude."""
    if len(set(values)) == 1:
        return [""] * len(values)
    return [value or "magnitude" for value in values]


def _part_echo_times(values: list[float | None]) -> list[str]:
    return _part_numbers(values, lambda a, b: b - a > max(ECHO_TIME_SHARE * a, LEAST_ECHO_TIME_MS))


def _part_repetition(values: list[float | None]) -> list[str]:
    return _part_numbers(values, lambda a, b: b >= REPETITION_TIME_FACTOR * a)


def _part_inversion(values: list[float | None]) -> list[str]:
    return _part_numbers(
        values, lambda a, b: b - a > max(INVERSION_TIME_SHARE * a, LEAST_INVERSION_TIME_MS)
    )


def _part_numbers(
    values: list[float | None], is_other: Callable[[float, float], bool]
) -> list[str]:
    """Part sorted numbers where two neighbours differ; the least of a part is its label."""
    known = sorted({value for value in values if value is not None})
    names: dict[float | None, str] = {None: ""}
    if known:
        names[known[0]] = f"{known[0]:g}"
    for short, long in pairwise(known):
        names[long] = f"{long:g}" if is_other(short, long) else names[short]
    return _part_texts([names[value] for value in values])


def are_alike(datasets: Sequence[pydicom.Dataset], keywords: Sequence[str]) -> bool:
    """Tell, without decoding texts, if data sets have the same values of some elements."""
    found = [[raw_value_of(dataset, keyword) for keyword in keywords] for dataset in datasets]
    return all(values == found[0] for values in found[1:])
