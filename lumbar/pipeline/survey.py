"""What a source holds, before anything is decoded or written: its files and its tables.

`survey` reads as its steps: find the files, group them by folders, join the tables with them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from lumbar.cache.errors import InputError
from lumbar.cache.format import is_safe_id
from lumbar.pipeline.events import Event, Join, Scanned
from lumbar.pipeline.output.unchanged import Key, SourceRecord
from lumbar.pipeline.reject import Rejection, first_of
from lumbar.pipeline.source.group import Groups, group_by_folder
from lumbar.pipeline.source.join_csv import join_tables
from lumbar.pipeline.source.layout import Layout, unused_tables
from lumbar.pipeline.source.rsna_csv import CsvTables
from lumbar.pipeline.source.scan import find_study_folders, walk

SCAN_BATCH = 256
"""Files per scan task, and between two `Scanned` events."""

MOST_NAMED = 6

_OF_THE_DATA_SET = re.compile(r".*/[0-9]+/[0-9]+/[0-9]+\.dcm", re.DOTALL)

Item = TypeVar("Item")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source holds; ``groups`` is None for a bare tree, which is grouped by its headers.

    ``record`` has the sizes and times of the files.
    """

    layout: Layout
    tables: CsvTables
    found: list[str | Rejection]
    groups: Groups | None
    record: SourceRecord
    joins: tuple[Join, ...] = field(default=())

    def studies(self, skip: Path) -> frozenset[str]:
        """Return the studies of the data set, with or without a usable file; not ``skip``."""
        named = {study_id for study_id, _ in self.tables.types or {}}
        if self.groups is not None:
            # A study may be an archive instead of a folder.
            named.update(study_id for study_id, _ in self.groups.files if is_safe_id(study_id))
            named.update(find_study_folders(self.layout.images, skip))
        return frozenset(named)


def survey(
    layout: Layout, tables: CsvTables, src: Path, out: Path, cached: Collection[Key] = ()
) -> Generator[Event, None, Survey]:
    """Find all files of a source with their sizes and times, and join its tables with them.

    ``tables`` are those of the layout, ``src`` is the path that the caller gave, ``out`` a folder
    that is left out, ``cached`` are the series that are already in the cache.

    Raises
    ------
    InputError
        If a table belongs to other images.
    """
    record = SourceRecord()
    found: list[str | Rejection] = []
    for batch in in_batches(walk_source(layout, out)):
        found.extend(batch)
        record.stat_files(layout.images, (item for item in batch if isinstance(item, str)))
        yield Scanned(len(found))
    paths = [item for item in found if isinstance(item, str)]
    _warn_of_unused(layout, src, paths)
    if layout.split is None:
        _warn_of_likeness(layout, paths)
        return Survey(layout, tables, found, None, record)
    groups = group_by_folder(found)
    tables, joins = join_tables(tables, layout, groups.files.keys() | set(cached))
    return Survey(layout, tables, found, groups, record, joins)


def check_not_empty(layout: Layout, out: Path) -> None:
    """Raise `InputError` for a source without any file."""
    if next(walk_source(layout, out), None) is None:
        raise InputError(
            what="the source holds no file",
            where=layout.images,
            got="no file in it or in any folder below",
            expected="DICOM files",
            cure="check --src",
        )


def walk_source(layout: Layout, out: Path) -> Iterator[str | Rejection]:
    """Yield the files of a source; links may lead to any file below the folder of its tables."""
    return walk(layout.images, out.resolve(), inside=layout.tables)


def in_batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield items in lists of `SCAN_BATCH`."""
    waiting = iter(items)
    while batch := list(islice(waiting, SCAN_BATCH)):
        yield batch


def _warn_of_unused(layout: Layout, src: Path, paths: list[str]) -> None:
    """Warn of CSV files of a data set in or near the source that are not used."""
    found = unused_tables(layout, src, paths)
    if not found:
        return
    named = first_of(found, MOST_NAMED)
    if layout.split is None:
        _log.warning(
            "%s is taken as a bare tree, without the data set's labels, types and points. These "
            "CSV files are not used, for no folder train_images or test_images lies beside them: "
            "%s",
            *(layout.images, named),
        )
    else:
        _log.warning(
            "CSV files of the data set that are not used, for they do not lie in %s: %s",
            *(layout.tables, named),
        )


def _warn_of_likeness(layout: Layout, paths: list[str]) -> None:
    """Warn if a bare tree has the layout of the data set's images."""
    root = layout.images.resolve().as_posix()
    alike = sum(_OF_THE_DATA_SET.fullmatch(f"{root}/{path}") is not None for path in paths)
    if alike * 2 > len(paths):
        _log.warning(
            "%s looks like images of the data set (<study>/<series>/<number>.dcm) and is taken as "
            "a bare tree: types and ids come from the headers, and there are no labels. Name the "
            "folder that holds train_images or test_images, if that is meant",
            layout.images,
        )
