"""Make ``augment-<step>.png``, the pictures of ``docs/augmentation.md``, from generated studies.

Run it from the root of the repository: ``python docs/pictures/make_augment_pictures.py``.
"""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.inspect.augment_sheet import (
    ALL,
    AUGMENTATIONS,
    TILE_INCHES,
    TILES,
    Example,
    draw_example,
    sample_examples,
)
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.preprocess import preprocess
from lumbar.synth.dataset import SynthConfig, write_dataset
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig

PIXELS = 136
"""The side of a tile."""
COLOURS = 24
"""Enough for grey tissue, and a noisy picture stays small."""
SEED = 3
SAGITTAL = CropConfig(slices=15, height=128, width=128, pixel_mm=2.0)
AXIAL = CropConfig(slices=15, height=128, width=128, pixel_mm=1.3)


def main(folder: Path) -> None:
    """Write one picture a step, and one of all steps that are on by default."""
    with tempfile.TemporaryDirectory() as scratch:
        cache = generated_cache(Path(scratch))
        for example in telling_examples(cache):
            (folder / picture_name(example.name)).write_bytes(png_of(example))


def picture_name(step: str) -> str:
    """Return the name of the file of a step."""
    return f"augment-{step.replace(' ', '-')}.png"


def generated_cache(scratch: Path) -> Cache:
    """Return a cache of a few generated studies."""
    config = SynthConfig(studies=3, seed=SEED, max_matrix=256)
    for _ in write_dataset(scratch / "dicom", config, workers=0):
        pass
    small = PreprocessConfig(size=256)
    for _ in preprocess(scratch / "dicom", scratch / "cache", small, workers=0):
        pass
    return Cache(scratch / "cache")


def telling_examples(cache: Cache) -> list[Example]:
    """Return an example a step, each at a strength that shows what it does."""
    sagittal = cache.rows_of(SeriesType.SAGITTAL_T2)[0]
    axial = cache.rows_of(SeriesType.AXIAL_T2)[0]
    # All strengths are the telling ones where nothing is configured.
    telling = sample_examples(
        cache, sagittal, crop=SAGITTAL, augment=AugmentConfig.none(), seed=SEED
    )
    by_default = sample_examples(cache, sagittal, crop=SAGITTAL, augment=AugmentConfig(), seed=SEED)
    across = sample_examples(cache, axial, crop=AXIAL, augment=AugmentConfig.none(), seed=SEED)
    found = {example.name: example for example in telling}
    found[ALL] = next(example for example in by_default if example.name == ALL)
    # Left and right lie beside each other in an axial picture.
    found["side exchange"] = next(e for e in across if e.name == "side exchange")
    return [found[name] for name in (*(step.name for step in AUGMENTATIONS), ALL)]


def png_of(example: Example) -> bytes:
    """Draw an example without its label, in few colours."""
    figure = Figure(figsize=(TILES * TILE_INCHES, TILE_INCHES), facecolor="black")
    draw_example(figure.add_axes((0, 0, 1, 1)), example)
    drawn, packed = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=PIXELS / TILE_INCHES)
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(packed, format="png", optimize=True)
    return packed.getvalue()


if __name__ == "__main__":
    main(Path(__file__).parent)
