"""The page of the pixels: its pictures are there, its numbers are the code's."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.geometry.orient import POSITION_TOLERANCE_MM
from lumbar.pipeline.geometry.parallel_slices import ORIENTATION_TOLERANCE_DEGREES
from lumbar.pipeline.series.normalise import LEVELS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "pixels.md").read_text()


def test_every_picture_is_on_the_page_and_made_by_the_script():
    named = re.findall(r"\]\(pictures/pixels-(\w+)\.png\)", PAGE)
    found = {path.stem.removeprefix("pixels-") for path in DOCS.glob("pictures/pixels-*.png")}
    script = (DOCS / "pictures" / "make_pixel_pictures.py").read_text()
    made = set(re.findall(r'^            "(\w+)":', script, re.MULTILINE))
    assert set(named) == found == made
    assert len(named) == len(found) == 8


def test_pictures_are_what_the_script_draws(tmp_path, monkeypatch):
    """Up to fonts and layout of another matplotlib: a picture of older code is another one."""
    monkeypatch.syspath_prepend(str(DOCS / "pictures"))
    import make_pixel_pictures  # noqa: PLC0415

    make_pixel_pictures.main(tmp_path)
    for path in sorted(DOCS.glob("pictures/pixels-*.png")):
        drawn, kept = (thumbnail(folder / path.name) for folder in (tmp_path, path.parent))
        assert np.abs(drawn - kept).mean() < 6, path.name


def thumbnail(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((96, 48), Image.Resampling.BOX), float)


@pytest.mark.parametrize("section", range(1, 8))
def test_each_step_has_its_picture(section):
    (text,) = re.findall(rf"^## {section}\. .*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert "](pictures/pixels-" in text


def test_numbers_of_the_page_are_the_codes():
    text = " ".join(PAGE.split())
    config = PreprocessConfig()
    low, high = config.percentiles
    for said in (
        f"`--max-pixels` ({config.max_pixels:,})",
        f"agree within {ORIENTATION_TOLERANCE_DEGREES} degrees",
        f"nearer than {POSITION_TOLERANCE_MM} mm",
        f"Percentiles {low} and {high}",
        f"{LEVELS['uint8']} levels (`uint8`) or {LEVELS['int16']:,} (`int16`)",
    ):
        assert said in text


def test_named_tests_and_scripts_exist():
    for path in re.findall(r"`((?:tests|docs)/[\w/]+\.py)`", PAGE):
        assert (DOCS.parent / path).is_file()
