"""Do the CSV files and the images belong together? Rows and images are matched and counted.

Labels join on the study, descriptions and points on the series. A table without any match is
refused. An id that a spreadsheet changed is repaired if it can mean only one id of the images.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.spelling import match_ids, plain_id
from lumbar.pipeline.events import Join
from lumbar.pipeline.reject import first_of
from lumbar.pipeline.source.layout import Layout
from lumbar.pipeline.source.rsna_csv import CsvTables

Key = tuple[str, ...]
"""A study id, or a study id and a series id."""

MOST_NAMED = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Match:
    """The keys of a table and those of the images; ``meant`` maps a table's key to the images'."""

    path: Path
    unit: str
    meant: dict[Key, Key]
    csv_only: list[Key]
    images_only: list[Key]
    known: Collection[Key]

    @property
    def n_matched(self) -> int:
        return len(set(self.meant.values()).intersection(self.known))

    def join(self) -> Join:
        repaired = sum(key != meant for key, meant in self.meant.items())
        counts = (self.n_matched, len(self.csv_only), len(self.images_only), repaired)
        return Join(self.path.name, self.unit, *counts)


def join_tables(
    tables: CsvTables, layout: Layout, series: Collection[tuple[str, str]]
) -> tuple[CsvTables, tuple[Join, ...]]:
    """Return the tables with the ids of the images, and the counts of each join.

    ``series`` are those that have files or are in the cache already.

    Raises
    ------
    InputError
        If a table has rows and none of them belongs to any image, or if two rows mean the same.
    """
    studies: set[Key] = {(study_id,) for study_id, _ in series}
    joins: list[Join] = []
    types, labels, points = tables.types, tables.labels, tables.points
    if not series:
        return tables, ()
    if types is not None and layout.series_csv is not None:
        match = _match(layout.series_csv, "series", list(types), series)
        _check_single(match)
        types = {(match.meant[key][0], match.meant[key][1]): type_ for key, type_ in types.items()}
        joins.append(match.join())
    if labels is not None and layout.labels_csv is not None:
        keys = [(study_id,) for study_id in labels["study_id"]]
        match = _match(layout.labels_csv, "studies", keys, studies)
        _check_single(match)
        labels = _with_ids_of_images(labels, ["study_id"], match).sort("study_id")
        joins.append(match.join())
    if points is not None and layout.coordinates_csv is not None:
        keys = list(points.select("study_id", "series_id").unique(maintain_order=True).iter_rows())
        match = _match(layout.coordinates_csv, "series", keys, series)
        points = _with_ids_of_images(points, ["study_id", "series_id"], match)
        joins.append(match.join())
    return replace(tables, types=types, labels=labels, points=points), tuple(joins)


def _match(path: Path, unit: str, keys: Sequence[Key], known: Collection[Key]) -> _Match:
    """Match the keys of a table with those of the images; warn of keys without a match."""
    known = set(known)
    meant = _find_meant(keys, known)
    csv_only = sorted(key for key, one in meant.items() if one not in known)
    images_only = sorted(known - set(meant.values()))
    match = _Match(path, unit, meant, csv_only, images_only, known)
    _check_any(match)
    _warn(match)
    return match


def _find_meant(keys: Sequence[Key], known: set[Key]) -> dict[Key, Key]:
    """Return the images' key that each key of a table means, or that key itself."""
    by_study: defaultdict[str, set[str]] = defaultdict(set)
    for key in known:
        by_study[key[0]].update(key[1:])
    study_of = match_ids((key[0] for key in keys if key not in known), by_study)
    # A spreadsheet did not change an id that is, as it stands, an id of the images.
    spelt: dict[Key, Key] = {key: (study_of.get(key[0], key[0]), *key[1:]) for key in keys}
    in_study: defaultdict[str, list[str]] = defaultdict(list)
    for key in spelt.values():
        in_study[key[0]].extend(key[1:])
    series_of = {study: match_ids(named, by_study[study]) for study, named in in_study.items()}
    meant = {
        key: (one[0], *(series_of[one[0]].get(name, name) for name in one[1:]))
        for key, one in spelt.items()
    }
    if any(plain_key(key) == one != key for key, one in meant.items()):
        # A spreadsheet changed one id, so it also changed the ids that have no images.
        meant = {key: one if one in known else plain_key(key) for key, one in meant.items()}
    return meant


def plain_key(key: Key) -> Key:
    """Return a key as it was before a spreadsheet changed it, as far as that is known."""
    return tuple(plain_id(name) or name for name in key)


def _with_ids_of_images(table: pl.DataFrame, columns: list[str], match: _Match) -> pl.DataFrame:
    if all(key == one for key, one in match.meant.items()):
        return table
    rows = [match.meant[row] for row in table.select(columns).iter_rows()]
    return table.with_columns(
        pl.Series(name, [row[i] for row in rows], pl.String) for i, name in enumerate(columns)
    )


def _check_any(match: _Match) -> None:
    """Refuse a table of which no row belongs to any image."""
    if not match.meant or match.n_matched:
        return
    raise InputError(
        what=f"no row of the table belongs to any of the {match.unit} of the images",
        where=match.path,
        got=f"{len(match.csv_only)} {match.unit} such as {_examples(match.csv_only)}",
        expected=f"those of the images, such as {_examples(match.images_only)}",
        cure="name the source that the table belongs to, or move the table away; if a spreadsheet "
        "changed the ids, take the table as it was before",
    )


def _check_single(match: _Match) -> None:
    """Refuse two rows that mean one series or study: it is unknown which of them is right."""
    taken: dict[Key, Key] = {}
    for key, one in match.meant.items():
        if one in taken:
            raise InputError(
                what="two rows of one " + ("study" if len(one) == 1 else "series"),
                where=match.path,
                got=f"{'/'.join(taken[one])} and {'/'.join(key)}, which both mean {'/'.join(one)}",
                expected="one row each",
                cure="remove one of the rows",
            )
        taken[one] = key


def _warn(match: _Match) -> None:
    """Warn of repaired ids and of ids without a match, with examples of both sides."""
    name, unit = match.path.name, match.unit
    changed = [
        f"{'/'.join(key)} is {'/'.join(one)}" for key, one in match.meant.items() if key != one
    ]
    if changed:
        _log.warning(
            "%s: %d %s are spelt otherwise and are taken as those of the images: %s",
            *(name, len(changed), unit, first_of(changed, MOST_NAMED)),
        )
    if name.lower().endswith("_coordinates.csv"):
        _warn_of_strange_points(match)
    elif match.images_only:
        beside = (
            f"; {len(match.csv_only)} of the table have no images, such as "
            f"{_examples(match.csv_only)}"
            if match.csv_only
            else ""
        )
        _log.warning(
            "%s: %d %s of the images have no row, such as %s%s",
            *(name, len(match.images_only), unit, _examples(match.images_only), beside),
        )


def _warn_of_strange_points(match: _Match) -> None:
    """Warn of points on a series that another study has, or that does not exist."""
    studies_of: defaultdict[str, list[str]] = defaultdict(list)
    for study_id, series_id in match.known:
        studies_of[series_id].append(study_id)
    images = {key[0] for key in match.known}
    elsewhere = [
        f"{'/'.join(key)} (of study {studies_of[key[1]][0]})"
        for key in match.csv_only
        if studies_of[key[1]]
    ]
    missing = [key for key in match.csv_only if key[0] in images and not studies_of[key[1]]]
    if elsewhere:
        _log.warning(
            "%s: points of %d series that are of another study by the images: %s",
            *(match.path.name, len(elsewhere), first_of(elsewhere, MOST_NAMED)),
        )
    if missing:
        _log.warning(
            "%s: points of %d series that their studies do not have, such as %s",
            *(match.path.name, len(missing), _examples(missing)),
        )


def _examples(keys: Sequence[Key]) -> str:
    """Return the first of some keys for a message."""
    return ", ".join("/".join(key) for key in keys[:MOST_NAMED]) or "none"
