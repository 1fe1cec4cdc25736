"""A picture of every augmentation of a configuration: ``lumbar inspect --augment``."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.store import Cache
from lumbar.inspect.augment_examples import TILES, Example, Tile, sample_examples
from lumbar.inspect.contact_sheet import SHADE
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig

TILE_INCHES = 1.4
LABEL_INCHES = 0.42
TITLE_INCHES = 0.13
GAP_INCHES = 0.2
COLUMNS = 2
DPI = 110
LETTERS_FROM_INCHES = 0.5
"""Smaller tiles would be covered by their letters."""


def augment_sheet(
    cache: Cache, row: int, out: Path, *, crop: CropConfig, augment: AugmentConfig, seed: int
) -> None:
    """Write a PNG with one row for each augmentation of the series in a row of ``cache.series``.

    What is shown is what training gets with this crop and these strengths; a step that is off is
    shown at a telling strength, and its label says so. Letters are the patient's directions.

    Raises
    ------
    FormatError, InputError
        If a volume or its metadata is damaged or gone.
    """
    examples = list(sample_examples(cache, row, crop=crop, augment=augment, seed=seed))
    per_column = -(-len(examples) // COLUMNS)
    width = COLUMNS * (TILES * TILE_INCHES + GAP_INCHES) + GAP_INCHES
    row_height = LABEL_INCHES + TILE_INCHES
    height = per_column * row_height + GAP_INCHES
    # A Figure of its own, outside pyplot: nothing stays open, whatever happens.
    figure = Figure(figsize=(width, height), facecolor="black")
    for number, example in enumerate(examples):
        column, place = divmod(number, per_column)
        left = GAP_INCHES + column * (TILES * TILE_INCHES + GAP_INCHES)
        top = height - place * row_height
        figure.text(
            left / width,
            (top - LABEL_INCHES + 0.04) / height,
            example.label,
            color="white",
            fontsize=7,
            va="bottom",
        )
        box = left / width, (top - row_height) / height
        size = TILES * TILE_INCHES / width, TILE_INCHES / height
        draw_example(figure.add_axes((*box, *size)), example)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, png.getvalue())


def draw_example(axes: Axes, example: Example) -> None:
    """Draw the tiles of an example into axes that are `TILES` tiles wide and one high."""
    axes.set_axis_off()
    line_height = TILE_INCHES / len(example.lines)
    for n, line in enumerate(example.lines):
        width = TILES * TILE_INCHES / max(len(line), TILES * len(example.lines))
        for place, tile in enumerate(line):
            _draw_tile(axes, tile, (place * width, n * line_height), (width, line_height))
    # After the pictures: each of them sets the limits to its own.
    axes.set_xlim(0, TILES * TILE_INCHES)
    axes.set_ylim(TILE_INCHES, 0)


def _draw_tile(
    axes: Axes, tile: Tile, corner_xy: tuple[float, float], size_xy: tuple[float, float]
) -> None:
    """Draw a picture into a box, as large as fits, its title above and its letters at its edges."""
    height, width = tile.image_hw.shape
    room_x, room_y = size_xy[0] - 0.03, size_xy[1] - TITLE_INCHES
    inches = min(room_x / width, room_y / height)
    left, top = corner_xy[0] + (room_x - inches * width) / 2, corner_xy[1] + TITLE_INCHES
    right, bottom = left + inches * width, top + inches * height
    axes.imshow(
        tile.image_hw,
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(left, right, bottom, top),
        aspect="auto",
    )
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    axes.text(middle_x, top - 0.02, tile.title, color="white", fontsize=5, ha="center", va="bottom")
    if min(inches * width, inches * height) < LETTERS_FROM_INCHES:
        return
    places = (left, middle_y), (right, middle_y), (middle_x, top), (middle_x, bottom)
    for (x, y), towards, letter in zip(
        places, ("left", "right", "top", "bottom"), tile.letters, strict=False
    ):
        axes.text(
            x,
            y,
            letter,
            color="#7fd4ff",
            fontsize=5,
            ha=towards if towards in {"left", "right"} else "center",
            va=towards if towards in {"top", "bottom"} else "center",
            bbox=SHADE,
        )
