import numpy as np
import pytest

from lumbar.cache.names import CELLS, EXCHANGED_CELLS, LEVELS, SeriesType
from lumbar.train.model.anatomy import ANATOMY

SAGITTAL = (SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2)


@pytest.mark.parametrize("series", SAGITTAL)
def test_a_sagittal_stack_runs_from_right_to_left_and_its_levels_run_down(series):
    anatomy = ANATOMY[series]
    down_mm = [region.centre_mm[0] for region in anatomy.regions]
    assert down_mm == sorted(down_mm)
    for cell, region, position in zip(
        CELLS, anatomy.cell_region, anatomy.cell_position, strict=True
    ):
        assert cell.endswith(LEVELS[region])
        wanted = np.sign(cell.startswith("left") - cell.startswith("right"))
        assert np.sign(position - 0.5) == wanted


def test_an_axial_image_shows_the_patients_left_on_its_right_and_the_stack_runs_down():
    anatomy = ANATOMY[SeriesType.AXIAL_T2]
    for cell, region, position in zip(
        CELLS, anatomy.cell_region, anatomy.cell_position, strict=True
    ):
        across_mm = anatomy.regions[region].centre_mm[1]
        assert np.sign(across_mm) == cell.startswith("left") - cell.startswith("right")
        level = next(i for i, name in enumerate(LEVELS) if cell.endswith(name))
        assert position == pytest.approx((level + 0.5) / 5)


@pytest.mark.parametrize("series", ANATOMY)
def test_places_mirror_with_the_sides(series):
    anatomy = ANATOMY[series]
    places = [
        (position, *anatomy.regions[region].centre_mm)
        for region, position in zip(anatomy.cell_region, anatomy.cell_position, strict=True)
    ]
    for cell, mirrored in enumerate(EXCHANGED_CELLS):
        position, down_mm, across_mm = places[cell]
        if series in SAGITTAL:
            assert places[mirrored] == pytest.approx((1 - position, down_mm, across_mm))
        else:
            assert places[mirrored] == pytest.approx((position, down_mm, -across_mm))
