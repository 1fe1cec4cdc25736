"""Files become series: by their folders in the data set's layout, by their UIDs in a bare tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lumbar.cache.names import SeriesType
from lumbar.pipeline.archive import split_member, without_suffix
from lumbar.pipeline.reject import Reason, Rejection
from lumbar.pipeline.scan import Identified


@dataclass(slots=True)
class Groups:
    """``(study_id, series_id) -> paths``, in order, and what belongs to no series."""

    files: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)

    def add(self, study_id: str, series_id: str, path: str) -> None:
        """Add a file to its series."""
        self.files.setdefault((study_id, series_id), []).append(path)


def group_by_folder(found: Iterable[str | Rejection]) -> Groups:
    """Group ``<study>/<series>/<file>``; a file at any other depth is rejected.

    An archive stands for its folder, ``<study>.zip`` or ``<study>/<series>.zip``, or holds
    ``<study>/<series>/<file>`` itself, wherever it lies and whatever it is called.
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
    """Return the folders and the name of a file, an archive being a folder or nothing."""
    member = split_member(path)
    if member is None:
        return path.split("/")
    inside = [part for part in member.name.split("/") if part not in {"", "."}]
    if len(inside) == 3:
        return inside
    return [*without_suffix(member.archive).split("/"), *inside]


def group_by_uid(found: Iterable[Identified | Rejection]) -> Groups:
    """Group the files of a bare tree."""
    groups = Groups()
    for item in found:
        if isinstance(item, Rejection):
            groups.rejections.append(item)
        else:
            groups.add(item.study_id, item.series_id, item.path)
    return groups


def reject_missing(
    groups: Groups,
    named: Mapping[tuple[str, str], SeriesType],
    cached: Iterable[tuple[str, str]],
) -> None:
    """Add a row for each series that the CSV names, that has no file and that is not ``cached``."""
    for study_id, series_id in sorted(named.keys() - groups.files.keys() - set(cached)):
        groups.rejections.append(
            Rejection(study_id, series_id, "", Reason.NO_FILES, str(named[study_id, series_id]))
        )
