"""Do all series of a study belong to one patient? In the data set's layout a folder joins them.

One file of each other series of the study is read. Names of patients are not recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pydicom

from lumbar.pipeline.dicom.contrast import PATIENT_TAGS, part_by_patient, read_patient
from lumbar.pipeline.dicom.elements import has
from lumbar.pipeline.series.task import SeriesTask
from lumbar.pipeline.source.archive import split_member
from lumbar.pipeline.source.scan import Identified, identify

MOST_COMPANIONS = 8
"""Most other series of a study that are read."""


def find_companions(
    files: Mapping[tuple[str, str], Iterable[str]],
) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return for each series one file of each other series of its study, in order.

    Files in tar archives are skipped: to reach one, all files before it are read.
    """
    first: dict[str, dict[str, str]] = {}
    for (study_id, series_id), paths in sorted(files.items()):
        path = min(paths)
        member = split_member(path)
        if member is None or member.archive.lower().endswith(".zip"):
            first.setdefault(study_id, {})[series_id] = path
    return {
        (study_id, series_id): tuple(
            path for other, path in first.get(study_id, {}).items() if other != series_id
        )[:MOST_COMPANIONS]
        for study_id, series_id in files
    }


def name_other_patients(task: SeriesTask, datasets: Sequence[pydicom.Dataset | None]) -> str:
    """Name the companions of a series that are of another patient, "" if there are none."""
    own = next((dataset for dataset in datasets if dataset is not None), None)
    if own is None or not task.companions or not any(has(own, name) for name in PATIENT_TAGS):
        return ""
    found = [one for one in identify(task.source, task.companions) if isinstance(one, Identified)]
    patients = [(one.path, one.traits.patient) for one in found if one.traits is not None]
    mine, *theirs = part_by_patient([read_patient(own), *(patient for _, patient in patients)])
    return ", ".join(
        path for (path, _), label in zip(patients, theirs, strict=True) if label != mine
    )
