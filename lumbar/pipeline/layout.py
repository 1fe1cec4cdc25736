"""What ``--src`` is: the data set's root, its images folder, or any tree of DICOM files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lumbar.cache.errors import InputError, MissingError

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files are.

    ``split`` is None for a bare tree, whose series are grouped by UID; otherwise ``images`` holds
    ``<study>/<series>/<instance>.dcm``, and the CSV files lie in ``tables``, each of them optional.
    """

    images: Path
    split: Split | None
    tables: Path

    @property
    def series_csv(self) -> Path | None:
        """``{split}_series_descriptions.csv``, if it exists."""
        return self._table("series_descriptions")

    @property
    def coordinates_csv(self) -> Path | None:
        """``{split}_label_coordinates.csv``, if it exists."""
        return self._table("label_coordinates")

    @property
    def labels_csv(self) -> Path | None:
        """``{split}.csv``, if it exists."""
        return self._table("")

    def resolve(self) -> Layout:
        """Return the same with absolute paths."""
        return Layout(self.images.resolve(), self.split, self.tables.resolve())

    def _table(self, name: str) -> Path | None:
        if self.split is None:
            return None
        path = self.tables / ("_".join(filter(None, (self.split, name))) + ".csv")
        return path if path.is_file() else None


def find_layout(src: Path, split: Split | None) -> Layout:
    """Return the layout of a source; without ``split``, train is taken before test.

    Raises
    ------
    MissingError
        If the source is no folder.
    InputError
        If the split is not there.
    """
    if not src.is_dir():
        raise MissingError(
            what="no such source folder",
            where=src,
            got="a file" if src.exists() else "nothing",
            expected="a folder of DICOM files, or one that holds train_images or test_images",
            cure="check --src",
        )
    for name in get_args(Split) if split is None else (split,):
        if (src / _images(name)).is_dir():
            return Layout(src / _images(name), name, src)
        if src.resolve().name == _images(name):
            return Layout(src, name, src.resolve().parent)
    if split is not None:
        raise InputError(
            what=f"the source has no split {split}",
            where=src,
            got=sorted(path.name for path in src.iterdir())[:8],
            expected=f"a folder {_images(split)}",
            cure="check --src and --split",
        )
    return Layout(src, None, src)


def _images(split: str) -> str:
    return f"{split}_images"
