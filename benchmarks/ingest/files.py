"""Generated series of one matrix and one transfer syntax each, and where their pixels lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom.encaps import generate_fragments
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from lumbar.cache.names import SeriesType
from lumbar.synth.dicom import sample_encoding, series_header, to_stored, write_instance
from lumbar.synth.study import render_series, sample_study

SYNTAXES = {"rle": RLELossless, "raw": ExplicitVRLittleEndian, "jpeg2000": JPEG2000Lossless}
NOISE = 0.03
DEEP_SLICES = 192
"""The most slices of a series of the public data."""


@dataclass(frozen=True, slots=True)
class SeriesKind:
    """Series of ``side`` x ``side`` pixels; ``limit`` is the target for lumbar over the floor."""

    syntax: str
    side: int
    limit: float | None

    @property
    def name(self) -> str:
        """As it stands in the results."""
        return f"{self.syntax}_{self.side}"


KINDS = (
    SeriesKind("rle", 512, 1.25),
    SeriesKind("rle", 384, 1.25),
    SeriesKind("raw", 512, 1.25),
    SeriesKind("raw", 320, 1.25),
    SeriesKind("jpeg2000", 384, 1.05),
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file, and the bytes of it that its decoder gets."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class SeriesFiles:
    """The folder of a series, and its files."""

    folder: Path
    kind: SeriesKind
    files: tuple[Encoded, ...]


def write_kind(root: Path, kind: SeriesKind, *, n_series: int, seed: int) -> list[SeriesFiles]:
    """Write series of one kind to ``root/train_images/STUDY/SERIES``, one a study."""
    return [_write_series(root, kind, seed, index, None) for index in range(n_series)]


def write_deep(root: Path, *, seed: int) -> SeriesFiles:
    """Write one series of `DEEP_SLICES` slices of the largest kind."""
    return _write_series(root, KINDS[0], seed, 0, DEEP_SLICES)


def _write_series(
    root: Path, kind: SeriesKind, seed: int, index: int, depth: int | None
) -> SeriesFiles:
    wanted = (SeriesType.SAGITTAL_T2 if index % 2 else SeriesType.SAGITTAL_T1,)
    study = sample_study(seed, index, test=False, wanted=wanted, max_matrix=kind.side)
    series = study.series[0]
    stacks = series.stacks
    if depth is not None:
        stack = stacks[0]
        stacks = (replace(stack, step=stack.step * stack.n_slices / depth, n_slices=depth),)
    series = replace(
        series,
        rows=kind.side,
        columns=kind.side,
        row_spacing=series.row_spacing * series.rows / kind.side,
        column_spacing=series.column_spacing * series.columns / kind.side,
        stacks=stacks,
    )
    study = replace(study, series=(series,))
    encoding = sample_encoding(study.generator(0))
    plain = replace(encoding, photometric="MONOCHROME2", signed=False, spacing_tags=True)
    header = series_header(study.study_id, 1, series, plain)
    folder = root / "train_images" / str(study.study_id) / "1"
    folder.mkdir(parents=True)
    for instance, (stack, place, image) in enumerate(render_series(study, 0, noise=NOISE), start=1):
        write_instance(
            folder,
            header,
            to_stored(image, plain),
            stack=stack,
            index=place,
            instance=instance,
            transfer_syntax=UID(SYNTAXES[kind.syntax]),
        )
    return SeriesFiles(folder, kind, tuple(_find_frames(folder)))


def _find_frames(folder: Path) -> Iterator[Encoded]:
    """Find the encoded pixels of each file: the floor shall not have to look for them."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        dataset = pydicom.dcmread(path)
        pixels = dataset.PixelData
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            pixels = list(generate_fragments(pixels))[1]
        start = data.index(pixels)
        yield Encoded(path, start, start + len(pixels))
