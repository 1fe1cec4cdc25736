"""A model of crops around discs sees what is lost in crops of whole series."""

import pytest

from lumbar.cache.names import SeriesType

pytestmark = pytest.mark.slow

CROPS_OF_DISCS = (
    "discs=true",
    "crop.slices=4",
    "crop.height=32",
    "crop.width=32",
    "crop.pixel_mm=2.0",
    "optim.batch=8",
    "optim.epochs=8",
    "optim.lr=2e-3",
    "locator.epochs=16",
    "locator.batch=4",
    "locator.lr=6e-3",
    "locator.slices=8",
    "locator.height=64",
    "locator.width=48",
    "locator.pixel_mm=4.0",
)


def test_a_model_of_discs_beats_one_of_whole_series_on_small_lesions(small_lesions, train_on):
    """A disc's crop has a third of the pixels, half as large each."""
    whole = train_on(small_lesions, SeriesType.SAGITTAL_T2, "optim.epochs=12")
    discs = train_on(small_lesions, SeriesType.SAGITTAL_T2, *CROPS_OF_DISCS)
    assert discs.prior == whole.prior
    assert discs.best.total < 0.5 * discs.prior.total
    assert discs.best.total < 0.7 * whole.best.total
