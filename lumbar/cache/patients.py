"""Which studies are of one patient: groups in ``cache.json``, keyed hashes in ``.patients``.

No reader needs the hashes. They let a later run tell a new study of a known patient without reading
the known ones again. Their key is not in the cache: it is made from the source (see
`lumbar.pipeline.source.patients`), so that nobody who has the cache alone can try patients' ids on
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lumbar.cache.errors import FormatError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.tables import PATIENTS_FILE
from lumbar.cache.volumes import crc32c

Groups = tuple[tuple[str, ...], ...]
"""The studies of every patient who has several, in order."""

NO_ID = ""
"""In the place of the hash of a study whose files name no patient: it is a patient of its own."""

_SEAL = b"lumbar patients 1 %08x\n"
_SEAL_LENGTH = len(_SEAL % 0)


@dataclass(frozen=True, slots=True)
class Hashes:
    """The keyed hash of each study's patient; ``key_id`` tells keys apart and says nothing else."""

    key_id: str = ""
    of_study: dict[str, str] = field(default_factory=dict)

    def groups(self, old: Groups = ()) -> Groups:
        """Return the studies of one patient each, where there are several.

        Studies without a hash, whose files are gone, stay together with those that they were
        ``old``-ly grouped with.
        """
        parent = {study_id: study_id for study_id in self.of_study}

        def root(study_id: str) -> str:
            parent.setdefault(study_id, study_id)
            while parent[study_id] != study_id:
                study_id = parent[study_id]
            return study_id

        def join(study_ids: Iterable[str]) -> None:
            first, *others = [root(study_id) for study_id in study_ids]
            for other in others:
                parent[other] = first

        by_hash: dict[str, list[str]] = {}
        for study_id, patient in self.of_study.items():
            if patient != NO_ID:
                by_hash.setdefault(patient, []).append(study_id)
        for study_ids in by_hash.values():
            join(study_ids)
        for group in old:
            if any(study_id not in self.of_study for study_id in group):
                join(group)
        together: dict[str, list[str]] = {}
        for study_id in parent:
            together.setdefault(root(study_id), []).append(study_id)
        return tuple(sorted(tuple(sorted(g)) for g in together.values() if len(g) > 1))


def patients_of(groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """Return what to call the patient of each grouped study: the first study of the group."""
    return {study_id: min(group) for group in map(tuple, groups) for study_id in group}


def write_hashes(cache: Path, hashes: Hashes) -> None:
    """Write ``.patients``, which its owner alone may read: a CRC-32C, then JSON."""
    document = {"key_id": hashes.key_id, "studies": hashes.of_study}
    data = json.dumps(document, sort_keys=True).encode() + b"\n"
    write_atomically(cache / PATIENTS_FILE, _SEAL % crc32c(data) + data)
    (cache / PATIENTS_FILE).chmod(0o600)


def read_hashes(cache: Path) -> Hashes:
    """Read ``.patients``, nothing where there is none; raise `FormatError` for a damaged one."""
    path = cache / PATIENTS_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Hashes()
    seal, data = content[:_SEAL_LENGTH], content[_SEAL_LENGTH:]
    if seal != _SEAL % crc32c(data):
        raise FormatError(
            what="record of the patients",
            where=path,
            got="bytes that were not written so",
            expected="what `lumbar preprocess` wrote",
            cure="remove it: the next `lumbar preprocess` reads a header of each study for it",
        )
    document: Mapping[str, object] = json.loads(data)
    studies = document["studies"]
    assert isinstance(studies, dict), "the seal says that we wrote it"
    return Hashes(str(document["key_id"]), {str(s): str(h) for s, h in studies.items()})
