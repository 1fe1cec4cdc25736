"""Places from crops: with a network that sees what the phantoms hide, every voxel is hit."""

import numpy as np
import pytest
import torch

from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.locator.config import LocatorConfig
from lumbar.train.locator.locate import Locator, locate
from lumbar.train.locator.network import LocatorNetwork

CPU = torch.device("cpu")
VALUES = np.array([60, 100, 140, 180, 220])
"""What a voxel of each level holds."""
CONFIG = LocatorConfig(slices=12, height=66, width=50, pixel_mm=2.0, batch=2)


class Seeing(LocatorNetwork):
    """Finds each level's value in the image; where it is nowhere, any place is as good."""

    def forward(self, image, present, position, lengths):
        values = torch.from_numpy(VALUES).view(1, 5, 1, 1, 1)
        found = ((image[:, None, :, 0] * 255).round() == values).float()
        found = found.clamp(min=1e-12) * present[:, None, :, None, None]
        return (found / found.sum(dim=(2, 3, 4), keepdim=True)).log()


def seeing(series_type, levels=(0, 1, 2, 3, 4), config=CONFIG):
    known = np.isin(np.arange(5), levels)
    return Locator(config, series_type, known, Seeing())


@pytest.fixture
def write(tmp_path, write_cache):
    def make(volumes):
        named = [
            (f"s{n}", f"s{n}.{n}", series_type, volume, placed)
            for n, (series_type, volume, placed) in enumerate(volumes)
        ]
        return Cache(write_cache(tmp_path / "cache", named, {}))

    return make


def hidden(shape, places):
    volume = np.zeros(shape, np.uint8)
    for value, (d, h, w) in zip(VALUES, places, strict=True):
        volume[d, h, w] = value
    return volume


def affine(spacing_mm):
    """An affine of a sagittal stack with (d, h, w) millimetres a voxel."""
    d, h, w = spacing_mm
    return np.array([[d, 0, 0, 0], [0, 0, w, 0], [0, -h, 0, 0], [0, 0, 0, 1.0]])


@pytest.mark.usefixtures("uncompiled_reader")
@pytest.mark.parametrize("depth", [5, 12])
def test_every_voxel_is_found_where_it_is(write, depth):
    rng = np.random.default_rng(depth)
    # The crop is larger than one image and smaller than the other; its pixels are the image's.
    shapes = [(depth, 60, 44), (depth, 66, 50), (depth, 70, 56)]
    places = [
        np.column_stack(
            [rng.permutation(depth)[:5], rng.integers(6, 58, 5), rng.integers(6, 40, 5)]
        )
        for _ in shapes
    ]
    volumes = [
        (SeriesType.SAGITTAL_T2, hidden(shape, at), affine((4, 2, 2)))
        for shape, at in zip(shapes, places, strict=True)
    ]
    found = locate(write(volumes), [2, 0, 1], seeing(SeriesType.SAGITTAL_T2), device=CPU, threads=1)
    assert found == pytest.approx(np.array(places)[[2, 0, 1]], abs=1e-3)


@pytest.mark.usefixtures("uncompiled_reader")
def test_in_finer_images_the_same_millimetres_are_found(write):
    places = np.column_stack([[1, 2, 3, 4, 5], [20, 36, 50, 70, 84], [30, 32, 40, 44, 50]])
    volume = np.zeros((7, 120, 96), np.uint8)
    for value, (d, h, w) in zip(VALUES, places, strict=True):
        # As wide as three pixels of the crop, so that one of them is rendered from it alone.
        volume[d, h - 3 : h + 4, w - 3 : w + 4] = value
    cache = write([(SeriesType.SAGITTAL_T2, volume, affine((4, 1, 1)))])
    found = locate(cache, [0], seeing(SeriesType.SAGITTAL_T2), device=CPU, threads=1)
    assert found[0] == pytest.approx(places, abs=1.0)


@pytest.mark.usefixtures("uncompiled_reader")
def test_a_disc_that_two_stacks_show_lies_in_one_of_them(write):
    upper = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [-4.0, 0, 0, 100], [0, 0, 0, 1]])
    volume = np.zeros((10, 60, 44), np.uint8)
    # The last disc is seen twice in the first stack and once in the second, the first in the last.
    volume[2, 20, 20] = volume[4, 24, 22] = volume[8, 50, 40] = VALUES[4]
    volume[9, 30, 31] = volume[7, 30, 31] = VALUES[0]
    volume[0, 9, 9], volume[5, 10, 10], volume[6, 11, 11] = VALUES[1:4]
    cache = write([(SeriesType.AXIAL_T2, volume, ((5, upper), (5, upper)))])
    (found,) = locate(cache, [0], seeing(SeriesType.AXIAL_T2), device=CPU, threads=1)
    assert found[4] == pytest.approx([3, 22, 21], abs=1e-3)
    assert found[0] == pytest.approx([8, 30, 31], abs=1e-3)
    assert found[1:4] == pytest.approx(np.array([[0, 9, 9], [5, 10, 10], [6, 11, 11]]), abs=1e-3)


@pytest.mark.usefixtures("uncompiled_reader")
@pytest.mark.parametrize(("known", "last_h"), [((0, 2), 50), ((1, 2, 3), 45)])
def test_levels_that_were_not_trained_lie_on_the_line_and_within_the_volume(write, known, last_h):
    places = np.column_stack([[3] * 5, [10, 20, 30, 40, 50], [20] * 5])
    volume = hidden((7, 60, 44), places)[:, : 60 if last_h == 50 else 46]
    cache = write([(SeriesType.SAGITTAL_T2, volume, affine((4, 2, 2)))])
    locator = seeing(SeriesType.SAGITTAL_T2, levels=known)
    (found,) = locate(cache, [0], locator, device=CPU, threads=1)
    places[4, 1] = last_h
    assert found == pytest.approx(places, abs=1e-3)
