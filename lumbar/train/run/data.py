"""The data that a run reads of its cache: recorded when it starts, compared when it resumes.

Voxels are not read for it: the tables of the cache hold their checksums. Data that the run does not
read, such as series of other types, is not part of the record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lumbar.cache.errors import FormatError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.store import Cache
from lumbar.train.plan.samples import ABSENT, Samples
from lumbar.train.run.split import SampleSplit

DATA = "data.json"
VERSION = 1
MOST_NAMED = 3

TRAIN, HELD_OUT = "train", "held out"

_MEASURED = (
    "series_type",
    "dtype",
    "depth",
    "height",
    "width",
    "affine",
    "n_stacks",
    "spacing_d_mm",
    "spacing_h_mm",
    "spacing_w_mm",
    "scale",
    "offset",
    "mean",
    "std",
)
"""Columns of the series table that do not depend on the cache's profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyData:
    """Digests of the data that a run reads of a study, to tell whether it has changed.

    ``side`` is `TRAIN` or `HELD_OUT`. ``voxels`` are the CRC-32C of the series' files, ``geometry``
    what else is known of them, both by series id. ``points`` is "" where no disc of it is placed by
    points.
    """

    side: str
    voxels: dict[str, int]
    geometry: dict[str, str]
    labels: str
    points: str


@dataclass(frozen=True, slots=True)
class RunData:
    """Which cache a run reads, and what of it."""

    cache: Path
    profile: str
    studies: dict[str, StudyData]

    @classmethod
    def of(cls, cache: Cache, split: SampleSplit) -> RunData:
        """Describe what a split reads of a cache; of discs, before they are located."""
        labels = dict(zip(split.train_studies, split.train_severity, strict=True))
        labels |= split.held_out_severity
        sides = dict.fromkeys(split.train_studies, TRAIN)
        sides |= dict.fromkeys(split.held_out_severity, HELD_OUT)
        rows: dict[str, dict[int, np.ndarray]] = {}
        points: dict[str, list[bytes]] = {}
        for samples in (split.train, split.held_out):
            _add_rows(samples, rows)
            _add_points(samples, points)
        ids, checksums = cache.series["series_id"].to_list(), cache.series["crc32c"].to_list()
        measured = cache.series.select(_MEASURED).rows()
        return cls(
            cache.root.resolve(),
            cache.profile,
            {
                study_id: StudyData(
                    side=sides[study_id],
                    voxels={ids[row]: checksums[row] for row in rows.get(study_id, {})},
                    geometry={
                        ids[row]: _digest(repr(measured[row]).encode(), axes.tobytes())
                        for row, axes in rows.get(study_id, {}).items()
                    },
                    labels=_digest(np.ascontiguousarray(labels[study_id], np.int8).tobytes()),
                    points=_digest(*points[study_id]) if study_id in points else "",
                )
                for study_id in sorted(sides)
            },
        )

    def write(self, run: Path) -> None:
        """Write it into a run's folder."""
        document = {"version": VERSION, "cache": str(self.cache), "profile": self.profile}
        studies = {study_id: asdict(data) for study_id, data in self.studies.items()}
        text = json.dumps(document | {"studies": studies}, sort_keys=True)
        write_atomically(run / DATA, text.encode() + b"\n")

    def changes_to(self, now: RunData) -> list[str]:
        """Return the changes, a text for each kind; an empty list where nothing has changed.

        With another profile the files' checksums always differ, and are not compared.
        """
        same_profile = self.profile == now.profile
        before, after = _series(self), _series(now)
        kept = sorted(before & after)
        both = sorted(self.studies.keys() & now.studies.keys())

        def differing(of: Callable[[RunData, str], object]) -> list[str]:
            return [study_id for study_id in both if of(self, study_id) != of(now, study_id)]

        def other_volume(key: str) -> bool:
            study_id, series_id = key.split("/")
            old, new = self.studies[study_id], now.studies[study_id]
            return old.geometry[series_id] != new.geometry[series_id] or (
                same_profile and old.voxels[series_id] != new.voxels[series_id]
            )

        found = {
            "series more": after - before,
            "series fewer": before - after,
            "series of other voxels": [key for key in kept if other_volume(key)],
            "labelled studies more": now.studies.keys() - self.studies.keys(),
            "labelled studies fewer": self.studies.keys() - now.studies.keys(),
            "studies on the other side of the split": differing(lambda d, s: d.studies[s].side),
            "studies of other labels": differing(lambda d, s: d.studies[s].labels),
            "studies of other points": differing(lambda d, s: d.studies[s].points),
        }
        return [_counted(what, names) for what, names in found.items() if names]


def read_run_data(run: Path) -> RunData | None:
    """Read what a run recorded; None for a run that was made before it was.

    Raises
    ------
    FormatError
        If the file is damaged or another lumbar's.
    """
    path = run / DATA
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        _require_version(document["version"])
        studies = {name: StudyData(**data) for name, data in document["studies"].items()}
        return RunData(Path(document["cache"]), document["profile"], studies)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            what="record of what a run reads",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected=f"what `lumbar train` wrote, of version {VERSION}",
            cure="remove it: the run then resumes with a warning that its cache is unknown",
        ) from error


def _require_version(version: object) -> None:
    if version != VERSION:
        message = f"version {version}"
        raise ValueError(message)


def _add_rows(samples: Samples, rows: dict[str, dict[int, np.ndarray]]) -> None:
    for study_id, of_sample, axes in zip(
        samples.study_id, samples.row, samples.patient_axes, strict=True
    ):
        here = {int(row): a for row, a in zip(of_sample, axes, strict=True) if row != ABSENT}
        rows.setdefault(study_id, {}).update(here)


def _add_points(samples: Samples, points: dict[str, list[bytes]]) -> None:
    for study_id, centre, stack, level in zip(
        samples.study_id, samples.centre_dhw, samples.stack, samples.level, strict=True
    ):
        if not np.isnan(centre).all():
            place = centre.tobytes() + stack.tobytes() + level.tobytes()
            points.setdefault(study_id, []).append(place)


def _series(data: RunData) -> set[str]:
    return {f"{study_id}/{s}" for study_id, of in data.studies.items() for s in of.voxels}


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _counted(what: str, names: Collection[str]) -> str:
    named = sorted(names)
    more = ", ..." if len(named) > MOST_NAMED else ""
    return f"{len(named)} {what} ({', '.join(named[:MOST_NAMED])}{more})"
