"""Which patient a study is of: a header of each study is read once, and its PatientID hashed.

The key of the hash is made of the whole content of the source's first file. So all shards of one
source have the same without telling each other, and who has no DICOM files of it has none.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumbar.cache.errors import FormatError
from lumbar.cache.patients import NO_ID, Hashes, read_hashes
from lumbar.pipeline.dicom.elements import text
from lumbar.pipeline.dicom.parse import MAX_FILE_BYTES, parse, quiet_pydicom
from lumbar.pipeline.reject import RejectedError
from lumbar.pipeline.source.archive import read_member, split_member

MOST_TRIED = 3
"""Files of a study that are read for a patient's id, where the first ones name none."""

Files = Mapping[tuple[str, str], Sequence[str]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Where files lie, and which there are, by study and series."""

    images: Path
    files: Files

    def of_study(self) -> dict[str, list[str]]:
        """Return the files of every study, in order."""
        found: dict[str, list[str]] = {}
        for (study_id, _), paths in sorted(self.files.items()):
            found.setdefault(study_id, []).extend(sorted(paths))
        return found


def known_hashes(cache: Path) -> Hashes:
    """Return what earlier runs know of the patients; nothing where the record is damaged."""
    try:
        return read_hashes(cache)
    except FormatError as error:
        _log.warning("%s", error)
        return Hashes()


def hash_patients(
    source: Source, every_file: Iterable[str], known: Hashes, *, changed: Collection[str]
) -> Hashes:
    """Return the hashes of the studies of a source, and those known of others.

    Only studies that are not known or have ``changed`` are read. ``every_file`` are those of the
    whole source, of which this may be a part. Where its first file is another than before, the key
    is too, and all studies are read anew.
    """
    files = source.of_study()
    wanted = [s for s in files if s not in known.of_study or s in changed]
    if not wanted:
        return known
    key = _make_key(source.images, every_file)
    key_id = _hash(key, "")
    if key_id != known.key_id:
        wanted, known = list(files), Hashes(key_id)
    with quiet_pydicom():
        found = {s: _read_patient(source.images, files[s]) for s in wanted}
    hashes = {s: NO_ID if p is None else _hash(key, p) for s, p in found.items()}
    return Hashes(key_id, known.of_study | hashes)


def _make_key(images: Path, every_file: Iterable[str]) -> bytes:
    first = min(every_file, default=None)
    content = b"" if first is None else _read(images, first) or first.encode()
    return hashlib.sha256(b"lumbar patients 1|" + content).digest()


def _hash(key: bytes, patient_id: str) -> str:
    return hmac.new(key, patient_id.encode(), hashlib.sha256).hexdigest()[:32]


def _read_patient(images: Path, files: Sequence[str]) -> str | None:
    """Return the PatientID of the first file that names one."""
    for name in files[:MOST_TRIED]:
        content = _read(images, name)
        try:
            named = "" if content is None else text(parse(content), "PatientID").strip()
        except Exception:
            # The edge of one file: a parser of foreign bytes raises whatever it likes.
            _log.debug("no patient in %s", name, exc_info=True)
            continue
        if named:
            return named
    return None


def _read(images: Path, name: str) -> bytes | None:
    member = split_member(name)
    try:
        if member is not None:
            return read_member(images, member, MAX_FILE_BYTES)
        with (images / name).open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except (OSError, RejectedError):
        return None
