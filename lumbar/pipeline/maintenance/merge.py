"""The caches of all shards become one, with the bytes that a single run would have written."""

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
from lumbar.pipeline.execution.failures import said_plainly
from lumbar.pipeline.geometry.points import PLACED
from lumbar.pipeline.output.open_cache import check_folder, open_cache, tidy_volumes
from lumbar.pipeline.output.unchanged import Sources
from lumbar.pipeline.output.write_tables import Origin, write_tables
from lumbar.pipeline.reject import Reason, Rejection, total_loss
from lumbar.pipeline.source.patients import known_hashes
from lumbar.pipeline.source.shard import Shard
from lumbar.pipeline.source.tables import Tables

_log = logging.getLogger(__name__)


def merge(out: Path, shards: Sequence[Path]) -> Iterator[VolumeTaken]:
    """Join finished shard caches to the cache ``out``; they stay as they are.

    Volumes are linked where the file system can, copied where it cannot. A merge that was stopped
    goes on.

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
    with said_plainly(out), locked(out):
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
            Rejection(**row | {"reason": Reason(row["reason"])})
            for part in parts
            for row in part.rejected.iter_rows(named=True)
        ]
        hashes, patients = _join_patients(parts)
        if hashes is not None:
            write_hashes(out, hashes)
        origin = Origin(settings, split, studies, patients=patients)
        write_tables(out, origin, _join_tables(parts), rejections)
        _join_sources(out, parts)


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
    for part in parts[1:]:
        for name in ("config", "format_version", "lumbar_version"):
            if part.description[name] != parts[0].description[name]:
                raise InputError(
                    what=f"the shards differ in their {name}",
                    where=part.root,
                    got=part.description[name],
                    expected=parts[0].description[name],
                    cure="make all shards with the same lumbar and the same options",
                )
        if part.description["source"]["split"] != parts[0].description["source"]["split"]:
            raise InputError(
                what="the shards are of different splits",
                where=part.root,
                got=part.description["source"]["split"],
                expected=parts[0].description["source"]["split"],
                cure="make all shards with the same --split",
            )


def _is_same(source: Path, out: Path, key: tuple[str, str]) -> bool:
    """Tell whether a volume was taken before; its chunk is in place when its metadata is."""
    theirs, ours = (volume_folder(cache, *key) for cache in (source, out))
    same_size = (theirs / CHUNK).stat().st_size == (ours / CHUNK).stat().st_size
    return same_size and (theirs / METADATA).read_bytes() == (ours / METADATA).read_bytes()


def _join_tables(parts: Sequence[Cache]) -> Tables:
    labels = pl.concat([part.labels for part in parts]).sort("study_id")
    points = pl.concat([part.coordinates.drop(PLACED) for part in parts])
    return Tables(None, labels, None if points.is_empty() else points)


def _join_patients(parts: Sequence[Cache]) -> tuple[Hashes | None, Groups | None]:
    """Join what the shards know of the patients; None where none of them looked."""
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


def _join_sources(out: Path, parts: Sequence[Cache]) -> None:
    """Join what the shards know of their source files, so that the next run need not read them."""
    joined = Sources()
    for part in parts:
        joined.known |= Sources.of(part.root).known
    joined.write(out)
