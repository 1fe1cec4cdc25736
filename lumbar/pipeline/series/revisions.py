"""Which series change under new rules: only these are decoded again.

A source hash is made from the bytes of files and from `lumbar.pipeline.series.read.REVISION`.
Raising the revision would decode every series again. A rule that changes few series is added to
the hashes of these series; all other hashes stay the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pydicom

from lumbar.pipeline.dicom.codecs import has_decoder
from lumbar.pipeline.dicom.elements import value_of
from lumbar.pipeline.dicom.header import SliceHeader
from lumbar.pipeline.dicom.parse import transfer_syntax
from lumbar.pipeline.geometry.order import Ordered
from lumbar.pipeline.geometry.orient import POSITION_TOLERANCE_MM, normal_of
from lumbar.pipeline.series.read import SeriesFiles

RULES = 3
"""Raise it with each new rule: every series is then read once, to find those that change."""

_EXTENDED = "1.2.840.10008.1.2.4.51"


def revised_hash(source_hash: str, rules: Sequence[str]) -> str:
    """Return the hash of a series that changes under some rules; without rules the hash itself."""
    if not rules:
        return source_hash
    return hashlib.sha256(f"{source_hash}|{'|'.join(rules)}".encode()).hexdigest()


def find_rules(series: SeriesFiles, headers: Sequence[SliceHeader], ordered: Ordered) -> list[str]:
    """Return the names of the rules under which a series differs from caches of revision 2."""
    rules = {
        "values": any(header.is_revised for header in headers),
        "files": series.is_revised,
        "order": ordered.is_revised,
        "spacing": _has_other_spacing(ordered),
        "codecs": any(_needs_last_decoder(d) for d in series.datasets if d is not None),
        "uid": series.task.shares_uid,
        "patients": bool(series.other_patients),
    }
    return [name for name, applies in rules.items() if applies]


def _has_other_spacing(ordered: Ordered) -> bool:
    """Tell if the two middle steps differ, or the thicknesses if there are no steps."""
    slices = ordered.straight
    places = np.array([header.position_lps for header in slices]).reshape(-1, 3)
    axes = np.array([normal_of(header) for header in slices]).reshape(-1, 3)
    steps_mm = np.abs((np.diff(places, axis=0) * axes[1:]).sum(axis=1))
    usable = np.sort(steps_mm[(np.diff(ordered.groups) == 0) & (steps_mm > POSITION_TOLERANCE_MM)])
    if not len(usable):
        return len({header.thickness_mm for header in slices}) > 1
    below, above = usable[(len(usable) - 1) // 2], usable[len(usable) // 2]
    return bool(above - below > POSITION_TOLERANCE_MM)


def _needs_last_decoder(dataset: pydicom.Dataset) -> bool:
    """Tell if a file may have been rejected because no decoder knew it."""
    syntax = transfer_syntax(dataset)
    if syntax == _EXTENDED:
        return bool(value_of(dataset, "BitsStored") != 8)
    return not has_decoder(syntax)
