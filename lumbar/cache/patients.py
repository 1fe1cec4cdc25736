"""Which studies are of one patient: groups in ``cache.json``, keyed hashes in ``.patients``.

No reader needs the hashes. With them a later run finds the patient of a new study without reading
the known studies again. Their key is not in the cache but made from the source (see
`lumbar.pipeline.source.patients`): whoever has only the cache cannot test patients' ids on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lumbar.cache.tables import PATIENTS_FILE, read_record, write_record

Groups = tuple[tuple[str, ...], ...]
"""The studies of every patient who has several, in order."""

NO_ID = ""
"""Instead of the hash, for a study whose files name no patient: a patient of its own."""


@dataclass(frozen=True, slots=True)
class Hashes:
    """The keyed hash of each study's patient; ``key_id`` only tells keys apart."""

    key_id: str = ""
    of_study: dict[str, str] = field(default_factory=dict)

    def groups(self, old: Groups = ()) -> Groups:
        """Return the studies of each patient who has several.

        Studies without a hash, whose files are gone, stay in their ``old`` group.
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
    """Return a name for the patient of each grouped study: the first study of the group."""
    return {study_id: min(group) for group in map(tuple, groups) for study_id in group}


def write_hashes(cache: Path, hashes: Hashes) -> None:
    """Write ``.patients``, readable by its owner only: JSON after a checksum."""
    document = {"key_id": hashes.key_id, "studies": hashes.of_study}
    data = json.dumps(document, sort_keys=True).encode() + b"\n"
    write_record(cache / PATIENTS_FILE, data)
    (cache / PATIENTS_FILE).chmod(0o600)


def read_hashes(cache: Path) -> Hashes:
    """Read ``.patients``, nothing where there is none; raise `FormatError` for a damaged one."""
    cure = "remove it: the next `lumbar preprocess` reads one header per study for it"
    data = read_record(cache / PATIENTS_FILE, cure=cure)
    if data is None:
        return Hashes()
    document: Mapping[str, object] = json.loads(data)
    studies = document["studies"]
    assert isinstance(studies, dict), "the checksum shows that lumbar wrote it"
    return Hashes(str(document["key_id"]), {str(s): str(h) for s, h in studies.items()})
