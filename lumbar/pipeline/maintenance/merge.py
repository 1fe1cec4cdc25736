"""Merge the caches of all shards into one, with the bytes that a single run would write."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.files.lock import locked
from lumbar.cache.index import find_volumes
from lumbar.cache.patients import Groups, Hashes, write_hashes
from lumbar.cache.store import Cache
from lumbar.cache.volumes import CHUNK, METADATA, adopt_volume, volume_folder
from lumbar.pipeline.events import VolumeTaken
from lumbar.pipeline.execution.failures import plain_errors
from lumbar.pipeline.output.open_cache import check_folder, open_cache, tidy_volumes
from lumbar.pipeline.output.unchanged import SourceRecord
from lumbar.pipeline.output.write_tables import Origin, stored_tables, write_tables
from lumbar.pipeline.reject import Rejection, total_loss
from lumbar.pipeline.source.patients import known_hashes
from lumbar.pipeline.source.shard import Shard

_log = logging.getLogger(__name__)


def merge(out: Path, shards: Sequence[Path]) -> Iterator[VolumeTaken]:
    """Merge finished shard caches into the cache ``out``; the shards stay as they are.

    Volumes are linked if the file system allows it, else copied. After a stop a second call goes
    on.

    Raises
    ------
    InputError, MissingError, FormatError
        If they are not all the finished shards of one run, each of them once.
    BusyError
        If another run holds the cache.
    LumbarError
        If none of them holds a series.
    """
    parts = [Cache(path) for path in shards]
    _check_shards(parts)
    if all(part.series.is_empty() for part in parts):
        reasons = Counter(name for part in parts for name in part.rejected["reason"])
        raise total_loss(", ".join(map(str, shards)), dict(reasons.most_common()))
    first = parts[0].description
    settings, split = first["config"], first["source"]["split"]
    check_folder(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    with plain_errors(out), locked(out):
        open_cache(out, settings, split, None, overwrite=False)
        stored = set(find_volumes(out))
        for part in parts:
            for key in find_volumes(part.root):
                if key not in stored or not _is_same(part.root, out, key):
                    adopt_volume(part.root, out, *key)
                yield VolumeTaken(*key)
        tidy_volumes(out)
        studies = frozenset(study_id for part in parts for study_id in part.source_studies)
        rejections = [
            Rejection.from_row(row) for part in parts for row in part.rejected.iter_rows(named=True)
        ]
        hashes, patients = _join_patients(parts)
        if hashes is not None:
            write_hashes(out, hashes)
        origin = Origin(settings, split, studies, patients=patients)
        labels = pl.concat([part.labels for part in parts]).sort("study_id")
        tables = stored_tables(labels, pl.concat([part.coordinates for part in parts]))
        write_tables(out, origin, tables, rejections)
        _join_records(out, parts)


def _check_shards(parts: Sequence[Cache]) -> None:
    """Raise `InputError` unless these are all the shards of one run."""
    named = [part.description.get("source", {}).get("shard") for part in parts]
    for part, name in zip(parts, named, strict=True):
        if name is None:
            raise InputError(
                what="this cache is no shard",
                where=part.root,
                got="a cache of a whole source",
                expected="caches made with --shard",
                cure="name the folders of the shards, and the result by --out",
            )
    shards = [Shard.parse(name) for name in named]
    wanted = {str(Shard(n, shards[0].count)) for n in range(1, shards[0].count + 1)}
    if sorted(named) != sorted(wanted):
        raise InputError(
            what="these are not all the shards of one run",
            got=", ".join(sorted(named)),
            expected=", ".join(sorted(wanted)),
            cure="name the folder of each shard once; make those that are missing",
        )
    expected = _origin_of(parts[0])
    for part in parts[1:]:
        for name, got in _origin_of(part).items():
            if got != expected[name]:
                raise InputError(
                    what=f"the shards differ in their {name}",
                    where=part.root,
                    got=got,
                    expected=expected[name],
                    cure="make all shards with the same lumbar, options and --split",
                )


def _origin_of(part: Cache) -> dict[str, object]:
    """Return what has to be equal in all shards of one run."""
    names = ("config", "format_version", "lumbar_version")
    described = {name: part.description[name] for name in names}
    return described | {"split": part.description["source"]["split"]}


def _is_same(source: Path, out: Path, key: tuple[str, str]) -> bool:
    """Tell whether a volume was taken before; its chunk is written before its metadata."""
    theirs, ours = (volume_folder(cache, *key) for cache in (source, out))
    same_size = (theirs / CHUNK).stat().st_size == (ours / CHUNK).stat().st_size
    return same_size and (theirs / METADATA).read_bytes() == (ours / METADATA).read_bytes()


def _join_patients(parts: Sequence[Cache]) -> tuple[Hashes | None, Groups | None]:
    """Join the hashes and the groups of patients of all shards; None if no shard has any."""
    if not any(part.knows_patients for part in parts):
        return None, None
    known = [known_hashes(part.root) for part in parts]
    first = next((hashes for hashes in known if hashes.of_study), Hashes())
    same = [hashes for hashes in known if hashes.key_id == first.key_id]
    if len(same) < len([hashes for hashes in known if hashes.of_study]):
        _log.warning(
            "the shards were made from sources whose first files differ: patients with studies in "
            "several of them are not recognised; `lumbar preprocess` on the merged cache finds them"
        )
    joined = Hashes(first.key_id, {s: h for hashes in same for s, h in hashes.of_study.items()})
    groups = [group for part in parts for group in part.description["source"].get("patients", ())]
    return joined, joined.groups(tuple(tuple(group) for group in groups))


def _join_records(out: Path, parts: Sequence[Cache]) -> None:
    """Join the records of the source files, so that the next run need not read these again."""
    joined = SourceRecord()
    for part in parts:
        joined.known |= SourceRecord.of(part.root).known
    joined.write(out)
