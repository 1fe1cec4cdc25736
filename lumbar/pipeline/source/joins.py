"""Do the CSV files speak of these images? Counted on both sides, spelt alike where that is sure.

Labels join on the study, descriptions and points on the series. A table of which no row matches
anything is refused, and a key that a spreadsheet changed is taken for the one that it surely means.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import polars as pl

from lumbar.cache.errors import InputError
from lumbar.cache.spelling import match_ids, plain_id
from lumbar.pipeline.events import Join
from lumbar.pipeline.source.layout import Layout
from lumbar.pipeline.source.tables import Tables

Key = tuple[str, ...]
"""A study, or a study and a series."""

MOST_NAMED = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Met:
    """The keys of a table against those of the images; ``meant`` is what each is taken for."""

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
    tables: Tables, layout: Layout, series: Collection[tuple[str, str]]
) -> tuple[Tables, tuple[Join, ...]]:
    """Return the tables with the ids of the images, and how each of them met the images.

    ``series`` are those of which there are files, or which are cached already.

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
        met = _meet(layout.series_csv, "series", list(types), series)
        _check_single(met)
        types = {(met.meant[key][0], met.meant[key][1]): type_ for key, type_ in types.items()}
        joins.append(met.join())
    if labels is not None and layout.labels_csv is not None:
        keys = [(study_id,) for study_id in labels["study_id"]]
        met = _meet(layout.labels_csv, "studies", keys, studies)
        _check_single(met)
        labels = _respelt(labels, ["study_id"], met).sort("study_id")
        joins.append(met.join())
    if points is not None and layout.coordinates_csv is not None:
        keys = list(points.select("study_id", "series_id").unique(maintain_order=True).iter_rows())
        met = _meet(layout.coordinates_csv, "series", keys, series)
        points = _respelt(points, ["study_id", "series_id"], met)
        joins.append(met.join())
    return replace(tables, types=types, labels=labels, points=points), tuple(joins)


def _meet(path: Path, unit: str, keys: Sequence[Key], known: Collection[Key]) -> _Met:
    """Compare the keys of a table with those of the images, and say what is to be said."""
    meant = _find_meant(keys, set(known))
    ours = set(meant.values())
    met = _Met(
        path,
        unit,
        meant,
        sorted(key for key, one in meant.items() if one not in known),
        sorted(set(known) - ours),
        set(known),
    )
    _check_any(met)
    _warn(met)
    return met


def _find_meant(keys: Sequence[Key], known: set[Key]) -> dict[Key, Key]:
    """Return the key of the images that each key of a table means, else itself."""
    by_study: defaultdict[str, set[str]] = defaultdict(set)
    for key in known:
        by_study[key[0]].update(key[1:])
    study_of = match_ids((key[0] for key in keys if key not in known), by_study)
    # An id that is another's as it stands was not changed by a spreadsheet.
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
        # One id was surely changed by a spreadsheet: so were those of which there are no images.
        meant = {key: one if one in known else plain_key(key) for key, one in meant.items()}
    return meant


def plain_key(key: Key) -> Key:
    """Return a key as it was before a spreadsheet, as far as that is known."""
    return tuple(plain_id(name) or name for name in key)


def _respelt(table: pl.DataFrame, columns: list[str], met: _Met) -> pl.DataFrame:
    if all(key == one for key, one in met.meant.items()):
        return table
    rows = [met.meant[row] for row in table.select(columns).iter_rows()]
    return table.with_columns(
        pl.Series(name, [row[i] for row in rows], pl.String) for i, name in enumerate(columns)
    )


def _check_any(met: _Met) -> None:
    """Refuse a table of which no row belongs to any image."""
    if not met.meant or met.n_matched:
        return
    raise InputError(
        what=f"no row of the table belongs to any of the {met.unit} of the images",
        where=met.path,
        got=f"{len(met.csv_only)} {met.unit} such as {_examples(met.csv_only)}",
        expected=f"those of the images, such as {_examples(met.images_only)}",
        cure="name the source that the table belongs to, or move the table away; if a spreadsheet "
        "changed the ids, take the table as it was before",
    )


def _check_single(met: _Met) -> None:
    """Refuse two rows that mean one series or study: nothing says which of them is right."""
    taken: dict[Key, Key] = {}
    for key, one in met.meant.items():
        if one in taken:
            raise InputError(
                what="two rows of one " + ("study" if len(one) == 1 else "series"),
                where=met.path,
                got=f"{'/'.join(taken[one])} and {'/'.join(key)}, which both mean {'/'.join(one)}",
                expected="one row each",
                cure="remove one of the rows",
            )
        taken[one] = key


def _warn(met: _Met) -> None:
    """Say what was spelt otherwise, and what found no partner, with the spellings of both sides."""
    changed = [(key, one) for key, one in met.meant.items() if key != one]
    if changed:
        named = ", ".join(f"{'/'.join(k)} is {'/'.join(o)}" for k, o in changed[:MOST_NAMED])
        _log.warning(
            "%s: %d %s are spelt otherwise and are taken as those of the images: %s%s",
            *(met.path.name, len(changed), met.unit, named, _more(changed)),
        )
    of_points = met.path.name.lower().endswith("_coordinates.csv")
    if met.images_only and not of_points:
        beside = (
            f"; {len(met.csv_only)} of the table have no images, such as {_examples(met.csv_only)}"
            if met.csv_only
            else ""
        )
        _log.warning(
            "%s: %d %s of the images have no row, such as %s%s",
            *(met.path.name, len(met.images_only), met.unit, _examples(met.images_only), beside),
        )
    if of_points:
        _warn_of_strange_points(met)


def _warn_of_strange_points(met: _Met) -> None:
    """Say which points name a series that there is under another study, or not at all."""
    studies_of: defaultdict[str, list[str]] = defaultdict(list)
    for study_id, series_id in met.known:
        studies_of[series_id].append(study_id)
    images = {key[0] for key in met.known}
    elsewhere = [key for key in met.csv_only if studies_of[key[1]]]
    missing = [key for key in met.csv_only if key[0] in images and not studies_of[key[1]]]
    if elsewhere:
        named = [f"{'/'.join(k)} (of study {studies_of[k[1]][0]})" for k in elsewhere[:MOST_NAMED]]
        _log.warning(
            "%s: points of %d series that are of another study by the images: %s%s",
            *(met.path.name, len(elsewhere), ", ".join(named), _more(elsewhere)),
        )
    if missing:
        _log.warning(
            "%s: points of %d series that their studies do not have, such as %s",
            *(met.path.name, len(missing), _examples(missing)),
        )


def _examples(keys: Sequence[Key]) -> str:
    """Return the first of some keys, as a person writes them."""
    return ", ".join("/".join(key) for key in islice(keys, MOST_NAMED)) or "none"


def _more(items: Sequence[object]) -> str:
    return ", ..." if len(items) > MOST_NAMED else ""
