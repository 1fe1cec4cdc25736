"""Files become series: by their folders in the data set's layout, by their UIDs in a bare tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lumbar.cache.names import SeriesType
from lumbar.pipeline.dicom.contrast import part_by_contrast, part_by_patient
from lumbar.pipeline.dicom.identity import shared_uid, split_ids
from lumbar.pipeline.reject import Reason, Rejection
from lumbar.pipeline.source.archive import split_member, without_suffix
from lumbar.pipeline.source.scan import Identified


@dataclass(slots=True)
class Groups:
    """``(study_id, series_id) -> paths`` in order, and the rows of files that have no series."""

    files: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)

    @property
    def shared(self) -> set[tuple[str, str]]:
        """The series that share their UID, or their study's UID, with others."""
        studies: dict[str, set[str]] = {}
        series: dict[tuple[str, str], int] = Counter()
        for study_id, series_id in self.files:
            studies.setdefault(shared_uid(study_id), set()).add(study_id)
            series[study_id, shared_uid(series_id)] += 1
        return {
            (study_id, series_id)
            for study_id, series_id in self.files
            if len(studies[shared_uid(study_id)]) > 1 or series[study_id, shared_uid(series_id)] > 1
        }

    def add(self, study_id: str, series_id: str, path: str) -> None:
        """Add a file to its series."""
        self.files.setdefault((study_id, series_id), []).append(path)


def group_by_folder(found: Iterable[str | Rejection]) -> Groups:
    """Group ``<study>/<series>/<file>``; a file at any other depth is rejected.

    An archive counts as the folder it is named by, ``<study>.zip`` or ``<study>/<series>.zip``, or
    holds ``<study>/<series>/<file>`` itself, wherever it lies and whatever its name is.
    """
    groups = Groups()
    for item in found:
        if isinstance(item, Rejection):
            groups.rejections.append(item)
            continue
        parts = _folders(item)
        if len(parts) == 3:
            groups.add(parts[0], parts[1], item)
        else:
            study_id, series_id = (*parts[:-1], "", "")[:2]
            detail = f"{len(parts) - 1} folders deep instead of 2"
            groups.rejections.append(
                Rejection(study_id, series_id, item, Reason.WRONG_PLACE, detail)
            )
    return groups


def _folders(path: str) -> list[str]:
    """Return the folders and the name of a file; an archive is a folder or is left out."""
    member = split_member(path)
    if member is None:
        return path.split("/")
    inside = [part for part in member.name.split("/") if part not in {"", "."}]
    if len(inside) == 3:
        return inside
    return [*without_suffix(member.archive).split("/"), *inside]


def group_by_uid(found: Iterable[Identified | Rejection]) -> Groups:
    """Group the files of a bare tree; a UID of several series or patients becomes several ids."""
    groups = Groups()
    by_study: dict[str, list[Identified]] = {}
    for item in found:
        if isinstance(item, Rejection):
            groups.rejections.append(item)
        else:
            by_study.setdefault(shared_uid(item.study_id), []).append(item)
    for items in by_study.values():
        for item in _part(items):
            groups.add(item.study_id, item.series_id, item.path)
    return groups


def _part(items: list[Identified]) -> list[Identified]:
    """Give the files of one StudyInstanceUID the ids of their study and their series."""
    traits = {item.path: item.traits for item in items if item.traits is not None}
    if len(traits) < len(items):
        return items  # nothing in the study has changed: these are final ids
    patients = part_by_patient([traits[item.path].patient for item in items])
    studies = split_ids(items[0].study_id, patients)
    by_series: dict[tuple[str, str], list[Identified]] = {}
    for item, study_id in zip(items, studies, strict=True):
        by_series.setdefault((study_id, item.series_id), []).append(item)
    parted = []
    for (study_id, series_uid), members in by_series.items():
        labels = part_by_contrast([traits[item.path].contrast for item in members])
        for item, series_id in zip(members, split_ids(series_uid, labels), strict=True):
            parted.append(replace(item, study_id=study_id, series_id=series_id))
    return sorted(parted, key=lambda item: item.path)


def reject_missing(
    groups: Groups,
    named: Mapping[tuple[str, str], SeriesType],
    cached: Iterable[tuple[str, str]],
) -> None:
    """Add a row for each series in the CSV that has no file and is not ``cached``."""
    for study_id, series_id in sorted(named.keys() - groups.files.keys() - set(cached)):
        groups.rejections.append(
            Rejection(study_id, series_id, "", Reason.NO_FILES, str(named[study_id, series_id]))
        )
