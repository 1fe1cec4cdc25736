"""One series, from the paths of its files to the stored volume: `convert` reads as its steps.

It runs in a worker process: it takes paths, writes the volume itself and returns a few numbers.
"""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from lumbar.cache.errors import FormatError, InputError
from lumbar.cache.format import VolumeAttributes, check_id
from lumbar.cache.tables import config_hash
from lumbar.cache.volumes import read_attributes, volume_folder, write_volume
from lumbar.pipeline.dicom.header import SliceHeader
from lumbar.pipeline.dicom.parse import quiet_pydicom
from lumbar.pipeline.flags import Flag
from lumbar.pipeline.reject import Reason, RejectedError, Rejection, describe
from lumbar.pipeline.series.image_numbers import add_image_grids, needs_grids, number_images
from lumbar.pipeline.series.other_patients import name_other_patients
from lumbar.pipeline.series.read import (
    SeriesFiles,
    hash_source,
    order_and_decode,
    order_headers,
    parse_files,
    read_files,
    read_headers,
    refuse_files,
    reject_left_out,
    reject_other_series,
)
from lumbar.pipeline.series.revisions import find_rules, revised_hash
from lumbar.pipeline.series.task import SeriesTask
from lumbar.pipeline.series.volume import build_volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """The result of a series; ``reason`` is None if it is in the cache.

    ``cached`` means that it was stored before. ``has_left_out`` means that some of its files were
    left out when it was stored; for a ``cached`` series the earlier run recorded their rows.
    """

    study_id: str
    series_id: str
    n_files: int
    nbytes: int
    cached: bool
    has_left_out: bool
    reason: Reason | None
    rejections: tuple[Rejection, ...]

    @property
    def key(self) -> tuple[str, str]:
        """The ids of the study and the series."""
        return self.study_id, self.series_id


def convert(task: SeriesTask) -> SeriesResult:
    """Store one series, unless it is stored already, and return the result.

    Never raises for the contents of the files; an `OSError` means that the cache cannot be written
    or that the whole source is gone.
    """
    series = SeriesFiles(task)
    try:
        with quiet_pydicom():
            return _convert(series)
    except RejectedError as error:
        series.reject("", error.reason, error.detail)
    except OSError:
        raise  # a full disk or a source that is gone stops the whole run
    except Exception as error:
        # The edge of one series: an error in it must not stop the other thousands.
        last = traceback.extract_tb(error.__traceback__)[-1]
        series.reject("", Reason.FAILED, f"{describe(error)} ({last.name}, line {last.lineno})")
    return _rejected(series)


def probe(task: SeriesTask) -> None:
    """Read, parse and decode files without storing anything, to see if the process survives.

    Raises
    ------
    OSError
        If the whole source is gone.
    """
    series = SeriesFiles(task)
    try:
        with quiet_pydicom():
            parse_files(series, read_files(series))
            order_and_decode(series, read_headers(series)[0])
    except OSError:
        raise
    except Exception:
        # Converting the series reports this error; here only crashes matter.
        _log.debug("probing %s", task.files, exc_info=True)


def reject_series(task: SeriesTask, reason: Reason, detail: str) -> SeriesResult:
    """Leave out a whole series, for a reason that is not in its files."""
    series = SeriesFiles(task)
    series.reject("", reason, detail)
    return _rejected(series)


def _convert(series: SeriesFiles) -> SeriesResult:
    task = series.task
    _check_ids(task)
    contents = read_files(series)
    n_unread = len(series.rejections)
    source_hash = hash_source(task, contents)
    refuse_files(series, contents)
    parse_files(series, contents)
    id_disagrees = reject_other_series(series)
    series.other_patients = name_other_patients(task, series.datasets)
    headers, described = read_headers(series)
    ordered = order_headers(series, headers)
    source_hash = revised_hash(source_hash, find_rules(series, headers, ordered))
    stored = _stored(task, source_hash)
    if stored is not None and _has_its_grids(task, stored, headers):
        del series.rejections[n_unread:]  # the run that stored the series recorded them
        return _result(series, cached=True, has_left_out=Flag.FILES_LEFT_OUT in stored.flags)
    ordered, pictures = order_and_decode(series, headers)
    if described is None or not ordered.headers:
        return _rejected(series)
    reject_left_out(series, ordered)
    volume_dhw, attributes = build_volume(
        task,
        ordered,
        pictures,
        described,
        source_hash=source_hash,
        left_out=series.rejections,
        id_disagrees=id_disagrees,
        mixed_contrasts=series.mixed_contrasts,
        other_patients=series.other_patients,
    )
    attributes = add_image_grids(attributes, task, headers, ordered.headers)
    write_volume(task.cache, volume_dhw, attributes, profile=task.config.profile)
    return _result(series, cached=False, has_left_out=bool(series.rejections))


def _check_ids(task: SeriesTask) -> None:
    try:
        check_id(task.study_id, name="study id")
        check_id(task.series_id, name="series id")
    except InputError as error:
        raise RejectedError(Reason.UNSAFE_ID, str(error)) from error


def _stored(task: SeriesTask, source_hash: str) -> VolumeAttributes | None:
    """Return the stored attributes of a series if they are of these files and options."""
    try:
        stored = read_attributes(task.cache, *task.key)
    except (FormatError, OSError):
        return None
    wanted = source_hash, config_hash(task.config.model_dump(mode="json"))
    if stored is None or (stored.source_hash, stored.config_hash) != wanted:
        return None
    return stored if task.knows_left_out or Flag.FILES_LEFT_OUT not in stored.flags else None


def _has_its_grids(
    task: SeriesTask, stored: VolumeAttributes, headers: Sequence[SliceHeader]
) -> bool:
    """Tell whether a stored volume has its image grids, or needs none.

    A volume of before there were image grids is decoded again only if its points may change.
    """
    if stored.image_grids or not task.by_folder:
        return True
    return not needs_grids(number_images(task, headers), len(headers) - stored.depth)


def _result(
    series: SeriesFiles, *, cached: bool, has_left_out: bool, reason: Reason | None = None
) -> SeriesResult:
    return SeriesResult(
        *series.task.key,
        len(series.task.files),
        series.nbytes,
        cached,
        has_left_out,
        reason,
        tuple(series.rejections),
    )


def _rejected(series: SeriesFiles) -> SeriesResult:
    """Return the result of a series that is left out, and remove its volume of an earlier run."""
    whole = [rejection for rejection in series.rejections if not rejection.path]
    reason = (whole or series.rejections)[0].reason
    if reason is not Reason.UNSAFE_ID:
        shutil.rmtree(volume_folder(series.task.cache, *series.task.key), ignore_errors=True)
    return _result(series, cached=False, has_left_out=True, reason=reason)
