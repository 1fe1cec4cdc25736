"""Make ``pixels-<step>.png``, the pictures of ``docs/pixels.md``, from a generated study.

Run it from the root of the repository: ``python docs/pictures/make_pixel_pictures.py``.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from lumbar.cache.format import VolumeAttributes
from lumbar.cache.store import Cache
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.dicom.decode import Picture, decode
from lumbar.pipeline.dicom.header import SliceHeader
from lumbar.pipeline.geometry.grid import place
from lumbar.pipeline.geometry.order import Ordered, centre_of, order_slices
from lumbar.pipeline.geometry.orient import Plane, choose_in_plane, orient, turn
from lumbar.pipeline.geometry.stacks import find_stacks
from lumbar.pipeline.preprocess import preprocess
from lumbar.pipeline.series.normalise import LEVELS, Rescale, find_window, quantise
from lumbar.pipeline.series.read import (
    SeriesFiles,
    order_and_decode,
    parse_files,
    read_files,
    read_headers,
)
from lumbar.pipeline.series.task import SeriesTask
from lumbar.pipeline.series.volume import build_volume
from lumbar.synth.dataset import SynthConfig, write_dataset

SEED = 11
COLOURS = 96
DPI = 80
GREY = {"cmap": "gray", "interpolation": "nearest"}


@dataclass(frozen=True)
class Shown:
    """A series of the generated study: as its files say, and as it is ordered."""

    headers: list[SliceHeader]
    ordered: Ordered
    pictures: dict[SliceHeader, np.ndarray]
    task: SeriesTask
    row: int


def main(folder: Path) -> None:
    """Write one picture a step."""
    with tempfile.TemporaryDirectory() as scratch:
        cache, source = generated(Path(scratch))
        sagittal = read(cache, source, "sagittal_t2")
        axial = read(cache, source, "axial_t2")
        steps: dict[str, Callable[[], Figure]] = {
            "found": lambda: draw_found(source, sagittal, Path(scratch)),
            "decode": lambda: draw_decoding(middle(sagittal)),
            "order": lambda: sample_order(axial),
            "gaps": draw_gaps,
            "orient": lambda: draw_orientation(middle(sagittal)),
            "grid": lambda: draw_grids(sagittal),
            "intensity": lambda: sample_intensity(sagittal),
            "points": lambda: draw_points(cache, sagittal),
        }
        for name, draw in steps.items():
            (folder / f"pixels-{name}.png").write_bytes(png_of(draw()))


def generated(scratch: Path) -> tuple[Cache, Path]:
    """Return a cache of a generated study, and the folder of its images."""
    config = SynthConfig(studies=1, seed=SEED, max_matrix=320)
    for _ in write_dataset(scratch / "dicom", config, workers=0):
        pass
    for _ in preprocess(scratch / "dicom", scratch / "cache", PreprocessConfig(), workers=0):
        pass
    return Cache(scratch / "cache"), scratch / "dicom" / "train_images"


def read(cache: Cache, images: Path, series_type: str) -> Shown:
    """Read a series of the study up to its order, as `lumbar.pipeline.series.convert` does."""
    row = int(cache.series["series_type"].to_list().index(series_type))
    study_id, series_id = cache.series.row(row)[:2]
    folder = images / study_id / series_id
    names = sorted(path.relative_to(images).as_posix() for path in folder.iterdir())
    task = SeriesTask(
        study_id, series_id, images, tuple(names), None, has_csv=False, cache=images,
        config=PreprocessConfig(),
    )  # fmt: skip
    series = SeriesFiles(task)
    parse_files(series, read_files(series))
    headers, _ = read_headers(series)
    ordered, pictures = order_and_decode(series, headers)
    return Shown(headers, ordered, {h: p.values for h, p in pictures.items()}, task, row)


def middle(shown: Shown) -> np.ndarray:
    """Return the stored values of the middle slice, turned as it is cached."""
    header = shown.ordered.headers[len(shown.ordered.headers) // 2]
    return turn(shown.pictures[header], choose_in_plane(header, shown.ordered.plane))


def tiles(titles: Sequence[str], *, width: float = 2.6, height: float = 2.9) -> list[Axes]:
    """Return axes beside each other, with titles."""
    figure = Figure(figsize=(width * len(titles), height), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(titles)))
    for one, title in zip(axes, titles, strict=True):
        one.set_title(title, fontsize=9)
        one.set_xticks([])
        one.set_yticks([])
    return list(axes)


def draw_found(images: Path, shown: Shown, scratch: Path) -> Figure:
    """Draw a folder as a disk may bring it, and what each of its files became."""
    src = scratch / "disk"
    (src / "DICOM").mkdir(parents=True)
    files = [images / name for name in shown.task.files[:6]]
    for file, name in zip(files[:3], ("IM000001", "IM000002.IMA", "3"), strict=True):
        shutil.copy(file, src / "DICOM" / name)
    with zipfile.ZipFile(src / "more.zip", "w") as packed:
        for file, name in zip(files[3:5], ("4.dcm", "5.dcm"), strict=True):
            packed.write(file, name)
    colour = pydicom.dcmread(files[5])
    colour.SamplesPerPixel, colour.PhotometricInterpretation = 3, "RGB"
    colour.save_as(src / "DICOM" / "screen.dcm")
    (src / "notes.txt").write_text("not DICOM")
    for _ in preprocess(src, scratch / "found", PreprocessConfig(), workers=0):
        pass
    cache = Cache(scratch / "found")
    order = cache.attributes(0).sop_instance_uids
    became = {row["path"]: row["reason"] for row in cache.rejected.iter_rows(named=True)}
    names = ("DICOM/IM000001", "DICOM/IM000002.IMA", "DICOM/3", "more.zip!/4.dcm",
             "more.zip!/5.dcm")  # fmt: skip
    for file, name in zip(files[:5], names, strict=True):
        became[name] = f"d = {order.index(pydicom.dcmread(file).SOPInstanceUID)} of the series"
    (axes,) = tiles([f"{len(became)} files, one series"], width=5.2, height=2.4)
    for line, (name, text) in enumerate(sorted(became.items())):
        colour_of = "0.1" if text.startswith("d =") else "C3"
        at = 1 - (line + 0.7) / (len(became) + 0.4)
        for x, shown_text in ((0.03, name), (0.5, "→"), (0.58, text)):
            axes.text(x, at, shown_text, family="monospace", fontsize=8, color=colour_of,
                      va="center", transform=axes.transAxes)  # fmt: skip
    return axes.figure


def draw_decoding(picture: np.ndarray) -> Figure:
    """Draw what scanners store, and what is left of it."""
    rng = np.random.default_rng(SEED)
    value = (picture // 2).astype(np.uint16)
    value[:, : value.shape[1] // 8] = 0
    overlay = (rng.random(value.shape) < 0.02).astype(np.uint16) << 12
    stored = (4095 - value) | overlay
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation = 16, 12, 0
    dataset.PixelData = stored.tobytes()
    kept = decode(dataset, 0).values
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PixelPaddingValue = 4095
    turned = decode(dataset, 0)
    a, b, c, d = tiles(
        ["as stored: 16 bits,\n12 of them the value", "bits above the value dropped",
         "MONOCHROME1 turned round", "padding found: no part\nof the window, stored as 0"]
    )  # fmt: skip
    a.imshow(stored, **GREY)
    b.imshow(kept, **GREY)
    c.imshow(turned.values, **GREY)
    d.imshow(np.where(turned.padding, np.nan, turned.values), **GREY)
    d.set_facecolor("#c04040")
    return a.figure


def sample_order(shown: Shown) -> Figure:
    """Draw the slices of an axial series from the side, numbered by file and by d."""
    a, b = tiles(["by InstanceNumber", "by position, each stack along its normal"], width=4.2)
    by_file = sorted(shown.headers, key=lambda header: header.instance_number)
    for axes, headers in ((a, by_file), (b, shown.ordered.headers)):
        for index, header in enumerate(headers):
            centre = centre_of(header)
            half = np.array(header.column_direction) * header.row_spacing_mm * header.rows / 2
            ends = np.array([centre - half, centre + half])
            colour = f"C{shown.ordered.groups[index]}" if axes is b else "0.35"
            axes.plot(ends[:, 1], ends[:, 2], color=colour, linewidth=0.8)
            if index % 4 == 0:
                axes.text(*ends[1, 1:], f" {index if axes is b else header.instance_number}",
                          fontsize=6, va="center")  # fmt: skip
        axes.set_aspect("equal")
        axes.set_xlabel("anterior → posterior", fontsize=7)
        axes.set_ylabel("inferior → superior", fontsize=7)
    return a.figure


def draw_gaps() -> Figure:
    """Draw three stacks that are not regular, as they become runs with an affine each."""
    a, b, c = tiles(["a slice twice", "a slice missing", "an uneven step"], height=2.2)
    for axes, places_mm in (
        (a, [0, 4, 8, 8.02, 12, 16]),
        (b, [0, 4, 12, 16, 20]),
        (c, [0, 4, 8, 13.3, 17.3]),
    ):
        headers = [sagittal_slice(float(place_mm), n) for n, place_mm in enumerate(places_mm)]
        ordered = order_slices(headers, Plane.SAGITTAL)
        _, placed = place(ordered.oriented, PreprocessConfig())
        stacks, _, notes = find_stacks(placed, ordered.groups, ordered.d_axes_lps, None)
        for number, stack in enumerate(stacks):
            for header in ordered.headers[stack.start : stack.stop]:
                axes.plot([header.position_lps[0]] * 2, [0, 1], linewidth=2, color=f"C{number}")
        for left_out in ordered.left_out:
            x = left_out.header.position_lps[0] + 0.35
            axes.plot([x] * 2, [0, 1], linewidth=2, linestyle=":", color="0.6")
        text = "\n".join(f"{flag}:\n{told}" for flag, told in (ordered.notes | notes).items())
        axes.set_xlabel(f"right → left, mm\n{text}", fontsize=7)
        axes.set_xticks(sorted({round(place_mm, 1) for place_mm in places_mm}))
        axes.tick_params(labelsize=7)
        axes.set_ylim(-0.1, 1.1)
    return a.figure


def sagittal_slice(x_mm: float, number: int) -> SliceHeader:
    """Return the header of a small sagittal slice."""
    return SliceHeader(
        file=number, frame=0, rows=8, columns=8, row_spacing_mm=1.0, column_spacing_mm=1.0,
        position_lps=(x_mm, 0.0, 0.0), row_direction=(0.0, 1.0, 0.0),
        column_direction=(0.0, 0.0, -1.0), instance_number=number + 1,
        sop_instance_uid="", turn=(number,), slope=1.0, intercept=0.0, thickness_mm=None,
    )  # fmt: skip


def draw_orientation(picture: np.ndarray) -> Figure:
    """Draw one sagittal picture as four scanners might store it, and as it is cached."""
    axes = tiles(["as cached", "rows from behind", "upside down", "rows and columns exchanged"])
    views = (picture, picture[:, ::-1], picture[::-1], picture.T)
    corners = (
        ("S", "I", "A", "P"),
        ("S", "I", "P", "A"),
        ("I", "S", "A", "P"),
        ("A", "P", "S", "I"),
    )
    for one, view, (top, bottom, left, right) in zip(axes, views, corners, strict=True):
        one.imshow(view, **GREY)
        for letter, x, y in ((top, 0.5, 0.95), (bottom, 0.5, 0.05), (left, 0.05, 0.5),
                             (right, 0.95, 0.5)):  # fmt: skip
            one.text(x, y, letter, transform=one.transAxes, color="gold", ha="center", va="center")
    return axes[0].figure


def draw_grids(shown: Shown) -> Figure:
    """Draw the middle slice on the three kinds of grid."""
    header = shown.ordered.headers[len(shown.ordered.headers) // 2]
    configs = {
        "native": PreprocessConfig(grid="native"),
        "fit, 384": PreprocessConfig(),
        "spacing, 0.8 mm, 256": PreprocessConfig(grid="spacing", spacing_mm=0.8, size=256),
    }
    axes = tiles(list(configs), width=3.0, height=3.3)
    for one, config in zip(axes, configs.values(), strict=True):
        oriented = orient(header, choose_in_plane(header, shown.ordered.plane))
        canvas, (placed,) = place([oriented], config)
        volume, attributes = volume_of(shown, config)
        one.imshow(volume[len(volume) // 2], **GREY)
        spacing = attributes.spacing_mm
        one.set_xlabel(
            f"{canvas[0]} x {canvas[1]} pixels of {spacing[1]:.2f} x {spacing[2]:.2f} mm\n"
            f"picture at row {placed.top}, column {placed.left}",
            fontsize=8,
        )
    return axes[0].figure


def volume_of(shown: Shown, config: PreprocessConfig) -> tuple[np.ndarray, VolumeAttributes]:
    """Build the volume of a series with a configuration."""
    source = SeriesFiles(replace(shown.task, config=config))
    parse_files(source, read_files(source))
    headers, described = read_headers(source)
    ordered, pictures = order_and_decode(source, headers)
    return build_volume(
        source.task, ordered, pictures, described, source_hash="", left_out=[], id_disagrees=""
    )


def sample_intensity(shown: Shown) -> Figure:
    """Draw the histogram of a series with its window, and a slice before and after."""
    pictures = list(shown.pictures.values())
    values = np.concatenate([picture.ravel() for picture in pictures])
    config = PreprocessConfig()
    window, _ = find_window(
        [Picture(picture, None) for picture in pictures],
        [Rescale(header.slope, header.intercept) for header in shown.pictures],
        config.percentiles,
    )
    picture = middle(shown).astype(np.float32)
    low, high = config.percentiles
    a, b, c = tiles(
        ["all values of the series", "as rescaled, least to greatest",
         f"{low:g} % is 0, {high:g} % is {LEVELS[config.dtype]}"],
        width=3.0,
    )  # fmt: skip
    a.hist(values, bins=120, log=True, color="0.5")
    for edge, percent in ((window.low, low), (window.high, high)):
        a.axvline(edge, color="C3")
        a.text(edge, a.get_ylim()[1] * 0.4, f" {percent:g} %: {edge:.0f}", fontsize=7, color="C3")
    a.set_xticks([0, int(values.max())])
    a.tick_params(labelsize=7)
    b.imshow(picture, vmin=values.min(), vmax=values.max(), **GREY)
    c.imshow(quantise(picture, window, config.dtype), vmin=0, vmax=LEVELS[config.dtype], **GREY)
    return a.figure


def draw_points(cache: Cache, shown: Shown) -> Figure:
    """Draw the annotated points of a series in an original picture and in the cached one."""
    series_id = shown.task.series_id
    points = cache.coordinates.filter(pl.col("series_id") == series_id)
    by_number = {header.instance_number: header for header in shown.headers}
    number = int(points["instance_number"].mode().min())
    here = points.filter(pl.col("instance_number") == number)
    a, b = tiles(["x, y of the file", "h, w of the cache"], width=3.4, height=3.6)
    a.imshow(shown.pictures[by_number[number]], **GREY)
    a.plot(here["x"], here["y"], "x", color="gold")
    a.set_xlabel(f"instance {number}", fontsize=8)
    d = int(here["d"][0])
    b.imshow(cache.volume(shown.row)[d], **GREY)
    b.plot(here["w"], here["h"], "x", color="gold")
    b.set_xlabel(f"d = {d}", fontsize=8)
    return a.figure


def png_of(figure: Figure) -> bytes:
    """Return a figure in few colours."""
    drawn, packed = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(
            packed, format="png", optimize=True
        )
    return packed.getvalue()


if __name__ == "__main__":
    main(Path(__file__).parent)
