"""Which patient a study belongs to: one header per study is read, and its PatientID is hashed.

The key of the hash is made from the whole content of the source's first file. So all shards of one
source have the same key, and without the DICOM files nobody has it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from lumbar.cache.errors import FormatError
from lumbar.cache.patients import NO_ID, Hashes, read_hashes
from lumbar.pipeline.dicom.elements import text
from lumbar.pipeline.dicom.parse import MAX_FILE_BYTES, parse, quiet_pydicom
from lumbar.pipeline.reject import RejectedError
from lumbar.pipeline.source.archive import read_file

MOST_TRIED = 3
"""Files of a study that are read for a PatientID, as long as the earlier ones have none."""

_log = logging.getLogger(__name__)


def known_hashes(cache: Path) -> Hashes:
    """Return the hashes of earlier runs; none if the record is damaged."""
    try:
        return read_hashes(cache)
    except FormatError as error:
        _log.warning("%s", error)
        return Hashes()


def hash_patients(
    images: Path,
    files: Mapping[tuple[str, str], Sequence[str]],
    every_file: Iterable[str],
    known: Hashes,
    *,
    changed: Collection[str],
) -> Hashes:
    """Return the hashes of the studies in ``files``, and the known ones of other studies.

    ``files`` has the paths below ``images`` by study and series. Only studies that are new or
    ``changed`` are read. ``every_file`` has the paths of the whole source, of which ``files`` may
    be a shard. If the first of them changes, so does the key, and all studies are read again.
    """
    of_study: dict[str, list[str]] = {}
    for (study_id, _), paths in sorted(files.items()):
        of_study.setdefault(study_id, []).extend(sorted(paths))
    wanted = [s for s in of_study if s not in known.of_study or s in changed]
    if not wanted:
        return known
    key = _make_key(images, every_file)
    key_id = _hash(key, "")
    if key_id != known.key_id:
        wanted, known = list(of_study), Hashes(key_id)
    with quiet_pydicom():
        found = {s: _read_patient(images, of_study[s]) for s in wanted}
    hashes = {s: NO_ID if p is None else _hash(key, p) for s, p in found.items()}
    return Hashes(key_id, known.of_study | hashes)


def _make_key(images: Path, every_file: Iterable[str]) -> bytes:
    first = min(every_file, default=None)
    content = b"" if first is None else _read(images, first) or first.encode()
    return hashlib.sha256(b"lumbar patients 1|" + content).digest()


def _hash(key: bytes, patient_id: str) -> str:
    return hmac.new(key, patient_id.encode(), hashlib.sha256).hexdigest()[:32]


def _read_patient(images: Path, files: Sequence[str]) -> str | None:
    """Return the PatientID of the first file that has one."""
    for name in files[:MOST_TRIED]:
        content = _read(images, name)
        try:
            patient_id = "" if content is None else text(parse(content), "PatientID").strip()
        except Exception:
            # The edge of one file: a parser of foreign bytes raises anything.
            _log.debug("no patient in %s", name, exc_info=True)
            continue
        if patient_id:
            return patient_id
    return None


def _read(images: Path, name: str) -> bytes | None:
    try:
        return read_file(images, name, MAX_FILE_BYTES)
    except (OSError, RejectedError):
        return None
