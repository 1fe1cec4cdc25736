"""Which series new rules make other volumes of: they alone are decoded again.

A source hash is made from the bytes of files, and from `lumbar.pipeline.series.files.REVISION`.
Raising that would decode everything anew. What has changed for few series enters their hash alone:
the hash of a series that no new rule concerns is the one that it had before.
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
from lumbar.pipeline.geometry.order import POSITION_TOLERANCE_MM, Ordered
from lumbar.pipeline.geometry.orient import normal_of
from lumbar.pipeline.series.files import Source

RULES = 3
"""Raise it with each new rule: series are then read once, to find out which it concerns."""

_EXTENDED = "1.2.840.10008.1.2.4.51"


def revised_hash(source_hash: str, rules: Sequence[str]) -> str:
    """Return the hash of a series that rules concern; without any the hash itself."""
    if not rules:
        return source_hash
    return hashlib.sha256(f"{source_hash}|{'|'.join(rules)}".encode()).hexdigest()


def find_rules(source: Source, headers: Sequence[SliceHeader], ordered: Ordered) -> list[str]:
    """Return the rules, by name, that make of a series what caches of revision 2 do not have."""
    rules = {
        "values": any(header.is_revised for header in headers),
        "files": source.is_revised,
        "order": ordered.is_revised,
        "spacing": _has_other_spacing(ordered),
        "codecs": any(_needs_last_decoder(d) for d in source.datasets if d is not None),
        "uid": source.task.shares_uid,
        "patients": bool(source.other_patients),
    }
    return [name for name, concerned in rules.items() if concerned]


def _has_other_spacing(ordered: Ordered) -> bool:
    """Tell if the two middle steps differ, or thicknesses that alone tell the spacing."""
    slices = ordered.straight
    places = np.array([header.position_lps for header in slices]).reshape(-1, 3)
    axes = np.array([normal_of(header) for header in slices]).reshape(-1, 3)
    steps_mm = np.abs((np.diff(places, axis=0) * axes[1:]).sum(axis=1))
    told = np.sort(steps_mm[(np.diff(ordered.groups) == 0) & (steps_mm > POSITION_TOLERANCE_MM)])
    if not len(told):
        return len({header.thickness_mm for header in slices}) > 1
    return bool(told[len(told) // 2] - told[(len(told) - 1) // 2] > POSITION_TOLERANCE_MM)


def _needs_last_decoder(dataset: pydicom.Dataset) -> bool:
    """Tell if a file may have been rejected for want of a decoder."""
    syntax = transfer_syntax(dataset)
    if syntax == _EXTENDED:
        return bool(value_of(dataset, "BitsStored") != 8)
    return not has_decoder(syntax)
