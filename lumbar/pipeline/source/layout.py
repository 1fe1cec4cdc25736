"""What ``--src`` is: the data set's root, its images folder, or any tree of DICOM files."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lumbar.cache.errors import InputError, MissingError
from lumbar.pipeline.source.archive import is_archive, list_members, split_member, without_suffix
from lumbar.pipeline.source.scan import is_of_the_system

Split = Literal["train", "test"]

SAMPLE = "sample_submission.csv"
TABLES = ("", "_series_descriptions", "_label_coordinates")
"""The names of the data set's CSV files, after that of their split."""

LEVELS_DOWN = 2
"""How many levels below the source a data set is searched for."""

_IMAGES = re.compile(r"(train|test)_images", re.IGNORECASE)
_TABLE = re.compile(
    rf"(?:train|test)(?:{'|'.join(TABLES)})\.csv|{re.escape(SAMPLE)}", re.IGNORECASE
)
_UNPACK = "unpack it, and name the folder that then holds train_images or test_images"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files of a source are.

    ``split`` is None for a bare tree, whose files are grouped by UID. Otherwise ``images`` holds
    ``<study>/<series>/<instance>.dcm``, and ``tables`` holds the CSV files, each of them optional.
    """

    images: Path
    split: Split | None
    tables: Path

    @property
    def series_csv(self) -> Path | None:
        """``{split}_series_descriptions.csv``, if it exists."""
        return self._table(f"{self.split}_series_descriptions.csv")

    @property
    def coordinates_csv(self) -> Path | None:
        """``{split}_label_coordinates.csv``, if it exists."""
        return self._table(f"{self.split}_label_coordinates.csv")

    @property
    def labels_csv(self) -> Path | None:
        """``{split}.csv``, if it exists."""
        return self._table(f"{self.split}.csv")

    @property
    def sample_csv(self) -> Path | None:
        """``sample_submission.csv`` of the test half, if it exists."""
        return self._table(SAMPLE) if self.split == "test" else None

    def resolve(self) -> Layout:
        """Return this layout with absolute paths."""
        return Layout(self.images.resolve(), self.split, self.tables.resolve())

    def _table(self, name: str) -> Path | None:
        if self.split is None:
            return None
        path = self.tables / name
        if path.is_file():
            return path
        alike = [one for one in tables_in(self.tables) if one.name.lower() == name]
        return alike[0] if len(alike) == 1 else None


def find_layout(src: Path, split: Split | None, *, first: Split = "train") -> Layout:
    """Return the layout of a source; without ``split``, ``first`` is preferred to the other split.

    A data set one or two folders down is found if it is the only one; the log names its folder.

    Raises
    ------
    MissingError
        If the source is no folder.
    InputError
        If the split is absent, the data set is packed, or there are several data sets.
    """
    if not src.is_dir():
        raise _no_folder(src)
    order = (first, *(name for name in get_args(Split) if name != first))
    wanted = order if split is None else (split,)
    layout = _find_root(src, wanted)
    if layout is not None and split is None:
        _log.info("%s is taken; --split names the other half, if it is meant", layout.images)
    if layout is None:
        _check_unpacked(src)
        if split is not None:
            raise InputError(
                what=f"the source has no split {split}",
                where=src,
                got=sorted(path.name for path in src.iterdir())[:8],
                expected=f"a folder {split}_images",
                cure="check --src and --split",
            )
        return Layout(src, None, src)
    return layout


def _no_folder(src: Path) -> MissingError:
    """Return the error for a source that is a file or does not exist."""
    is_packed = src.is_file() and is_archive(src.name)
    return MissingError(
        what="no such source folder",
        where=src,
        got="an archive" if is_packed else "a file" if src.exists() else "nothing",
        expected="a folder of DICOM files, or one that holds train_images or test_images",
        cure=f"{_UNPACK}; archives of other DICOM files are read where they lie in a folder"
        if is_packed
        else "check --src",
    )


def _find_root(src: Path, wanted: Sequence[Split]) -> Layout | None:
    """Return the data set in a folder, or the only one below it, or None."""
    here = _root_at(src, wanted)
    if here is not None:
        return here
    every = list(_roots_below(src, wanted, LEVELS_DOWN))
    below = [layout for split in wanted for layout in every if layout.split == split]
    below = [layout for layout in below if layout.split == below[0].split]
    if len(below) > 1:
        raise InputError(
            what="several data sets below the source",
            where=src,
            got=", ".join(str(layout.images) for layout in below[:4]),
            expected="one, or a folder that holds train_images or test_images itself",
            cure="name one of them by --src",
        )
    if not below:
        return None
    layout = below[0]
    if not tables_in(layout.tables) and tables_in(src):
        layout = Layout(layout.images, layout.split, src)
    _log.warning(
        "the data set is taken from %s, with the CSV files in %s; nothing else of %s is read",
        *(layout.images, layout.tables, src),
    )
    return layout


def _root_at(src: Path, wanted: Sequence[Split]) -> Layout | None:
    """Return the layout of a folder that holds images folders or is one, or None."""
    for split in wanted:
        exact = f"{split}_images"
        if (src / exact).is_dir():
            return Layout(_without_doubled(src / exact, split), split, src)
        alike = [name for name in _folders(src) if _split_of(name) == split]
        if len(alike) == 1:
            _log.warning("%s is taken as %s", src / alike[0], exact)
            return Layout(_without_doubled(src / alike[0], split), split, src)
    here = src.resolve()
    split_here = _split_of(here.name)
    if split_here is not None and split_here in wanted:
        return Layout(_without_doubled(src, split_here), split_here, here.parent)
    return None


def _without_doubled(images: Path, split: Split) -> Path:
    """Return an images folder, or the only one inside it, as unpacking may create it."""
    inner = _folders(images)
    if len(inner) == 1 and _split_of(inner[0]) == split:
        _log.warning("the images are taken from %s", images / inner[0])
        return images / inner[0]
    return images


def _roots_below(folder: Path, wanted: Sequence[Split], levels: int) -> Iterator[Layout]:
    """Yield the data sets some levels below a folder; none is searched inside another."""
    for name in _folders(folder):
        found = _root_at(folder / name, wanted)
        if found is not None:
            yield found
        elif levels > 1:
            yield from _roots_below(folder / name, wanted, levels - 1)


def _check_unpacked(src: Path) -> None:
    """Refuse a data set whose images lie in an archive: it would be read as a bare tree."""
    for folder in _folders_down(src, LEVELS_DOWN):
        is_looked_into = folder == src or bool(tables_in(folder))
        for path in _files(folder):
            if not is_archive(path.name):
                continue
            is_named = _split_of(without_suffix(path.name)) is not None
            is_zip = is_looked_into and path.suffix.lower() == ".zip"
            if is_named or (is_zip and _holds_images(folder, path.name)):
                raise InputError(
                    what="the images of the data set are packed",
                    where=path,
                    got="an archive",
                    expected="a folder train_images or test_images, with the CSV files beside it",
                    cure=_UNPACK,
                )


def _folders_down(folder: Path, levels: int) -> Iterator[Path]:
    """Yield a folder and the folders some levels below it."""
    yield folder
    for name in _folders(folder) if levels else ():
        yield from _folders_down(folder / name, levels - 1)


def _holds_images(src: Path, archive: str) -> bool:
    """Tell whether an archive holds an images folder of the data set, two folders down at most."""
    for item in list_members(src, archive):
        member = split_member(item) if isinstance(item, str) else None
        folders = [] if member is None else member.name.split("/")[: LEVELS_DOWN + 1]
        if any(_split_of(name) is not None for name in folders):
            return True
    return False


def is_table(name: str) -> bool:
    """Tell whether a file is named like a CSV file of the data set."""
    return _TABLE.fullmatch(name) is not None


def tables_in(folder: Path) -> list[Path]:
    """Return the files of a folder that are named like CSV files of the data set."""
    return [path for path in _files(folder) if is_table(path.name)]


def unused_tables(layout: Layout, src: Path, found: Iterable[str]) -> list[Path]:
    """Return the CSV files of a data set in or near a source that are not used.

    ``found`` are the files below ``layout.images``. Files of the other split do not count.
    """
    about = [layout.images / path for path in found if is_table(path.rpartition("/")[2])]
    if layout.split is None:
        # Above a bare tree a disk holds anything: only the exact names are searched there.
        above = src.resolve().parent
        named = [f"{split}{name}.csv" for split in get_args(Split) for name in TABLES]
        return [*about, *(above / name for name in named if (above / name).is_file())]
    about += [path for folder in (layout.tables, src) for path in tables_in(folder)]
    about += [
        path for name in _folders(src) if _split_of(name) is None for path in tables_in(src / name)
    ]
    taken = (layout.series_csv, layout.coordinates_csv, layout.labels_csv, layout.sample_csv)
    used = {path.resolve() for path in taken if path is not None}
    mine = [path for path in about if path.name.lower().startswith(str(layout.split))]
    return [path for path in dict.fromkeys(mine) if path.resolve() not in used]


def _split_of(name: str) -> Split | None:
    """Return the split in the name of an images folder, in any case, or None."""
    found = _IMAGES.fullmatch(name)
    if found is None:
        return None
    return "train" if found[1].lower() == "train" else "test"


def _folders(path: Path) -> list[str]:
    """Return the names of the folders in a folder that may be data, in order."""
    try:
        with os.scandir(path) as entries:
            named = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []  # reading the source raises with the cause
    return sorted(name for name in named if not is_of_the_system(name))


def _files(path: Path) -> list[Path]:
    """Return the files in a folder, in order."""
    try:
        with os.scandir(path) as entries:
            return sorted(path / entry.name for entry in entries if entry.is_file())
    except OSError:
        return []
