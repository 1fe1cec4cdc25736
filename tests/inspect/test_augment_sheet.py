"""Every augmentation is shown as training gets it, and has its picture and its section."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.inspect.augment_sheet import (
    ALL,
    AUGMENTATIONS,
    ORIGINAL,
    TILES,
    augment_sheet,
    sample_examples,
)
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "augmentation.md").read_text()
MOST_BYTES = 40_000
CROP = CropConfig(slices=6, height=40, width=32, pixel_mm=5.0)
NAMES = [step.name for step in AUGMENTATIONS]
CONFIGURED = AugmentConfig(gamma=0.9, side_exchange=0.25, probability=0.3)


def axial_affine():
    return np.diag([4.0, 4.0, -4.0, 1.0])[:, [2, 1, 0, 3]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    """Two sagittal series and one axial: gradients, on which every step is a change."""
    rng = np.random.default_rng(5)
    d, h, w = np.indices((9, 60, 48))
    sagittal = [(20 + 12 * d + 2 * h + k * w) % 256 for k in (1, 3)]
    axial = rng.integers(0, 256, (8, 40, 44))
    lying = np.eye(4)
    lying[:3, :3] = [[4.5, 0, 0], [0, 0, 3.0], [0, -3.0, 0]]
    volumes = [
        ("s0", "0", SeriesType.SAGITTAL_T2, sagittal[0].astype(np.uint8), lying),
        ("s0", "1", SeriesType.AXIAL_T2, axial.astype(np.uint8), axial_affine()),
        ("s1", "2", SeriesType.SAGITTAL_T2, sagittal[1].astype(np.uint8), lying),
    ]
    severity = np.full(25, -1, np.int8)
    severity[5:15] = [0, 0, 1, 2, 0, 1, 1, 0, 0, 2]
    return Cache(write_cache(tmp_path_factory.mktemp("sheet") / "c", volumes, {"s0": severity}))


def drawn(cache, row=0, *, augment=CONFIGURED, seed=3, crop=CROP):
    examples = sample_examples(cache, row, crop=crop, augment=augment, seed=seed)
    return {example.name: example for example in examples}


@pytest.fixture(scope="module")
def examples(cache):
    return drawn(cache)


@pytest.fixture(scope="module")
def axial_examples(cache):
    return drawn(cache, 1)


def images(tiles):
    return np.stack([tile.image_hw for tile in tiles])


def test_every_key_is_a_step():
    keys = [step.key for step in AUGMENTATIONS]
    assert set(keys) == set(AugmentConfig.model_fields) - {"probability"}
    assert len(set(keys)) == len(set(NAMES)) == len(AUGMENTATIONS)


def test_every_step_has_a_row(examples):
    assert list(examples) == [ORIGINAL, *NAMES, ALL]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_shows_a_change(examples, axial_examples, name):
    for found in (examples[name], axial_examples[name]):
        if len(found.lines) > 1:
            was, *draws = (images(line) for line in found.lines)
            assert all((was != draw).any() for draw in draws)
        else:
            was, *draws = images(found.lines[0])
            assert (was != draws[0]).any()
            assert len({draw.tobytes() for draw in draws}) == len(draws)


def test_a_box_is_cut_out_of_the_slice_that_is_shown(examples):
    first, *draws = images(examples["cutout"].lines[0])
    boxes = [tile.title.split(" x ")[1:] for tile in examples["cutout"].lines[0][1:]]
    assert max(int(h) * int(w) for h, w in boxes) > 20
    zeros = [int((draw == 0).sum() - (first == 0).sum()) for draw in draws]
    assert sum(zeros) > 0.5 * sum(int(h) * int(w) for h, w in boxes)


def test_all_draws_start_from_one_picture(examples):
    lines = [examples[name].lines[0] for name in (*NAMES, ALL) if len(examples[name].lines) == 1]
    first = [line[0] for line in lines if line[0].title == "as it is"]
    assert len(first) == len(NAMES) - 4 + 1
    assert all(np.array_equal(tile.image_hw, first[0].image_hw) for tile in first)


def test_the_original_is_the_cache(cache):
    crop = CropConfig(slices=9, height=60, width=48, pixel_mm=3.0)
    (line,) = drawn(cache, crop=crop)[ORIGINAL].lines
    volume = cache.volume(0) / 255
    assert len(line) == TILES
    assert images(line) == pytest.approx(volume[[0, 2, 4, 6, 8]], abs=1e-6)
    assert [tile.title for tile in line][::4] == ["x +0.0 mm", "x +36.0 mm L"]
    assert line[0].letters == ("A", "P", "S", "I")


def test_side_exchange_of_a_sagittal_stack_reverses_it_and_its_labels(examples):
    found = examples["side exchange"]
    was, exchanged = (images(line) for line in found.lines)
    assert np.array_equal(was[::-1], exchanged)
    assert [tile.title for tile in found.lines[1]] == [
        tile.title for tile in reversed(found.lines[0])
    ]
    assert "foramen L 0 0 1 2 0, foramen R 1 1 0 0 2; exchanged" in found.label
    assert "exchanged: foramen L 1 1 0 0 2, foramen R 0 0 1 2 0" in found.label


@pytest.mark.parametrize(
    ("name", "was", "mirrored"),
    [("mirror front-back", "APSI", "PASI"), ("mirror head-foot", "APSI", "APIS")],
)
def test_letters_go_with_the_tissue(examples, name, was, mirrored):
    (line,) = examples[name].lines
    for before, after in zip(line[::2], line[1::2], strict=True):
        assert ("".join(before.letters), "".join(after.letters)) == (was, mirrored)
        flip = (
            (slice(None), slice(None, None, -1)) if name.endswith("back") else slice(None, None, -1)
        )
        assert after.image_hw == pytest.approx(before.image_hw[flip], abs=1e-5)


def test_left_and_right_of_an_axial_slice(axial_examples):
    found = axial_examples["side exchange"]
    (line,) = found.lines
    assert "".join(line[0].letters[:2]) == "RL"
    assert "".join(line[1].letters[:2]) == "LR"
    assert line[1].image_hw == pytest.approx(line[0].image_hw[:, ::-1], abs=1e-5)
    assert "recess L" in found.label


def test_a_head_foot_mirror_of_an_axial_stack_is_a_strip(axial_examples):
    was, mirrored = (images(line) for line in axial_examples["mirror head-foot"].lines)
    assert np.array_equal(was[::-1], mirrored)


def test_labels_tell_what_is_configured_and_what_is_not(examples):
    assert examples["rotation"].label == "rotation   augment.rotation_degrees = 8°"
    assert examples["gamma"].label.endswith("= 0.9, in 30% of the samples, here in all")
    assert examples["blur"].label.endswith("= 0 mm: off, shown at 3 mm all the same")
    assert "= 0.25: in 25% of the samples" in examples["side exchange"].label
    on = "rotation, scale, shift, side exchange, brightness, contrast, gamma, noise"
    assert examples[ALL].label.splitlines()[1] == on


def test_strengths_are_the_configured_ones(cache):
    slight = drawn(cache, augment=AugmentConfig(rotation_degrees=0.5))["rotation"].lines[0]
    degrees = [float(tile.title.rstrip("°")) for tile in slight[1:]]
    assert 0 < max(map(abs, degrees)) <= 0.5


def test_dropped_slices_are_named(examples):
    before, *draws = examples["slice dropout"].lines
    assert "none" not in [tile.title for tile in before]
    assert any(tile.title == "none" and not tile.letters for line in draws for tile in line)


def test_a_seed_gives_the_same_pictures_and_another_gives_others(cache, examples):
    def pixels(found):
        return b"".join(tile.image_hw.tobytes() for line in found.lines for tile in line)

    again, other = drawn(cache), drawn(cache, seed=1)
    assert [pixels(e) for e in again.values()] == [pixels(e) for e in examples.values()]
    assert pixels(other["rotation"]) != pixels(examples["rotation"])


def test_one_series_alone_and_of_one_slice(tmp_path, write_cache):
    volume = np.arange(40 * 44, dtype=np.uint16).reshape(1, 40, 44).astype(np.uint8)
    volumes = [("s", "1", SeriesType.AXIAL_T2, volume, axial_affine())]
    found = drawn(Cache(write_cache(tmp_path / "c", volumes, {})))
    assert list(found) == [ORIGINAL, *NAMES, ALL]
    assert {tile.title for tile in found["mixup"].lines[0][1:]} == {"100% its own"}
    assert "unknown here" in found["side exchange"].label


def test_sheet_is_written(cache, tmp_path):
    out = tmp_path / "pictures" / "sheet.png"
    augment_sheet(cache, 0, out, crop=CROP, augment=CONFIGURED, seed=0)
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert min(image.size) > 1000
        assert len(image.convert("L").getcolors()) > 100


def section(name):
    title = "All together" if name == ALL else name.capitalize()
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", [*NAMES, ALL])
def test_every_step_has_a_section_with_its_picture(name):
    picture = f"pictures/augment-{name.replace(' ', '-')}.png"
    assert f"]({picture})" in section(name)
    with Image.open(DOCS / picture) as image:
        assert image.width > image.height
    assert (DOCS / picture).stat().st_size < MOST_BYTES


@pytest.mark.parametrize("key", AugmentConfig.model_fields)
def test_page_has_every_default(key):
    default = AugmentConfig.model_fields[key].default
    assert re.findall(rf"^- `augment\.{key} = (.*?)`", PAGE, re.MULTILINE) == [str(default)]


@pytest.mark.parametrize("step", AUGMENTATIONS, ids=lambda step: step.name)
def test_a_section_names_its_key(step):
    assert f"`augment.{step.key} = " in section(step.name)


def test_no_picture_is_of_no_step():
    named = {f"augment-{name.replace(' ', '-')}.png" for name in (*NAMES, ALL)}
    assert {path.name for path in (DOCS / "pictures").glob("augment-*.png")} == named
