"""One series, from the paths of its files to the stored volume: `convert` reads as its steps.

Runs in a worker process: it takes paths, writes the volume itself and returns a few numbers.
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
from lumbar.pipeline.series.companions import name_other_patients
from lumbar.pipeline.series.files import (
    SeriesTask,
    Source,
    hash_source,
    order_and_decode,
    order_headers,
    parse_files,
    read_files,
    read_headers,
    refuse_files,
    reject_left_out,
    reject_strangers,
)
from lumbar.pipeline.series.image_numbers import must_say, number_images, say_images
from lumbar.pipeline.series.revisions import find_rules, revised_hash
from lumbar.pipeline.series.volume import build_volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """What became of a series; ``reason`` is None where it is in the cache.

    ``cached`` says that it was there before. ``has_left_out`` says that files of such a series were
    left out when it was stored: their rows are those of the run before.
    """

    study_id: str
    series_id: str
    n_files: int
    nbytes: int
    cached: bool
    has_left_out: bool
    reason: Reason | None
    rejections: tuple[Rejection, ...]


def convert(task: SeriesTask) -> SeriesResult:
    """Store one series, unless it is stored already, and return what became of it.

    Never raises for what the files hold; an `OSError` means that the cache cannot be written or
    that the whole source is gone.
    """
    source = Source(task)
    try:
        with quiet_pydicom():
            return _convert(source)
    except RejectedError as error:
        source.reject("", error.reason, error.detail)
    except OSError:
        raise  # a full disk or a source that is gone is not a property of one series
    except Exception as error:
        # The edge of one series: whatever is wrong with it, the other thousands go on.
        last = traceback.extract_tb(error.__traceback__)[-1]
        source.reject("", Reason.FAILED, f"{describe(error)} ({last.name}, line {last.lineno})")
    return _rejected(source)


def probe(task: SeriesTask) -> None:
    """Read, parse and decode files, and store nothing: whether the process outlives it tells.

    Raises
    ------
    OSError
        If the whole source is gone.
    """
    source = Source(task)
    try:
        with quiet_pydicom():
            parse_files(source, read_files(source))
            order_and_decode(source, read_headers(source)[0])
    except OSError:
        raise
    except Exception:
        # What can be caught is told when the series is converted; here only crashes matter.
        _log.debug("probing %s", task.files, exc_info=True)


def reject_series(task: SeriesTask, reason: Reason, detail: str) -> SeriesResult:
    """Leave out a whole series, for a reason that its files do not tell."""
    source = Source(task)
    source.reject("", reason, detail)
    return _rejected(source)


def _convert(source: Source) -> SeriesResult:
    task = source.task
    _check_ids(task)
    contents = read_files(source)
    n_unread = len(source.rejections)
    source_hash = hash_source(task, contents)
    refuse_files(source, contents)
    parse_files(source, contents)
    id_disagrees = reject_strangers(source)
    source.other_patients = name_other_patients(task, source.datasets)
    headers, described = read_headers(source)
    ordered = order_headers(source, headers)
    source_hash = revised_hash(source_hash, find_rules(source, headers, ordered))
    stored = _stored(task, source_hash)
    if stored is not None and _says_its_numbers(task, stored, headers):
        del source.rejections[n_unread:]  # they are known from the run that stored the series
        return _result(source, cached=True, has_left_out=Flag.FILES_LEFT_OUT in stored.flags)
    ordered, pictures = order_and_decode(source, headers)
    if described is None or not ordered.headers:
        return _rejected(source)
    reject_left_out(source, ordered)
    volume_dhw, attributes = build_volume(
        task,
        ordered,
        pictures,
        described,
        source_hash=source_hash,
        left_out=source.rejections,
        id_disagrees=id_disagrees,
        mixed_contrasts=source.mixed_contrasts,
        other_patients=source.other_patients,
    )
    attributes = say_images(attributes, task, headers, ordered.headers)
    write_volume(task.cache, volume_dhw, attributes, profile=task.config.profile)
    return _result(source, cached=False, has_left_out=bool(source.rejections))


def _check_ids(task: SeriesTask) -> None:
    try:
        check_id(task.study_id, name="study id")
        check_id(task.series_id, name="series id")
    except InputError as error:
        raise RejectedError(Reason.UNSAFE_ID, str(error)) from error


def _stored(task: SeriesTask, source_hash: str) -> VolumeAttributes | None:
    """Return what is stored of a series if it was made from these sources by these options."""
    try:
        stored = read_attributes(task.cache, task.study_id, task.series_id)
    except (FormatError, OSError):
        return None
    wanted = source_hash, config_hash(task.config.model_dump(mode="json"))
    if stored is None or (stored.source_hash, stored.config_hash) != wanted:
        return None
    return stored if task.knows_left_out or Flag.FILES_LEFT_OUT not in stored.flags else None


def _says_its_numbers(
    task: SeriesTask, stored: VolumeAttributes, headers: Sequence[SliceHeader]
) -> bool:
    """Tell whether a stored volume says which slice each number means, where it has to.

    One of before this was said is decoded again if, and only if, its points may change.
    """
    if stored.image_grids or not task.by_folder:
        return True
    return not must_say(number_images(task, headers), len(headers) - stored.depth)


def _result(source: Source, *, cached: bool, has_left_out: bool) -> SeriesResult:
    task = source.task
    return SeriesResult(
        task.study_id,
        task.series_id,
        len(task.files),
        source.nbytes,
        cached,
        has_left_out,
        None,
        tuple(source.rejections),
    )


def _rejected(source: Source) -> SeriesResult:
    """Return the result of a series that is left out; a volume of an earlier run goes too."""
    task = source.task
    whole = [rejection for rejection in source.rejections if not rejection.path]
    reason = (whole or source.rejections)[0].reason
    if reason is not Reason.UNSAFE_ID:
        shutil.rmtree(volume_folder(task.cache, task.study_id, task.series_id), ignore_errors=True)
    return SeriesResult(
        task.study_id,
        task.series_id,
        len(task.files),
        source.nbytes,
        cached=False,
        has_left_out=True,
        reason=reason,
        rejections=tuple(source.rejections),
    )
