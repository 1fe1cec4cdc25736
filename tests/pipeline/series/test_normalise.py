"""Percentiles against numpy's, and what is stored of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lumbar.cache.format import IntensityWindow
from lumbar.pipeline.dicom.decode import Picture
from lumbar.pipeline.reject import Reason, RejectedError
from lumbar.pipeline.series.normalise import LEVELS, Rescale, find_window, quantise, rescale

IDENTITY = Rescale(1.0, 0.0)


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.int16]), (3, 5, 7)),
    st.sampled_from([(0.5, 99.5), (0.0, 100.0), (5.0, 50.0), (33.3, 66.6)]),
    st.sampled_from([IDENTITY, Rescale(0.25, -100.0), Rescale(-2.0, 7.0)]),
)
def test_window_is_numpys_percentiles(values, percentiles, factors):
    rescaled = values.astype(float) * factors.slope + factors.intercept
    expected = np.percentile(rescaled, percentiles)
    pictures = [Picture(value, None) for value in values]
    if values.min() == values.max():
        with pytest.raises(RejectedError, match=Reason.CONSTANT):
            find_window(pictures, [factors] * 3, percentiles)
        return
    window, is_sparse = find_window(pictures, [factors] * 3, percentiles)
    if is_sparse:
        assert expected[0] == pytest.approx(expected[1], abs=1e-9)
        expected = rescaled.min(), rescaled.max()
    assert np.allclose([window.low, window.high], expected, rtol=1e-12, atol=1e-9)


def test_window_spans_slices_of_different_rescaling():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 4000, (4, 9, 9)).astype(np.uint16)
    factors = [Rescale(1 + k / 7, 3.0 * k) for k in range(4)]
    rescaled = [
        v * f.slope + f.intercept for v, f in zip(values.astype(float), factors, strict=True)
    ]
    window, _ = find_window([Picture(v, None) for v in values], factors, (0.5, 99.5))
    expected = np.percentile(rescaled, (0.5, 99.5))
    assert np.allclose([window.low, window.high], expected)


def test_padding_does_not_count():
    values = np.array([[0, 10, 20, 65535]], np.uint16)
    window, _ = find_window([Picture(values, values == 65535)], [IDENTITY], (0.0, 100.0))
    assert window == IntensityWindow(0.0, 20.0)
    with pytest.raises(RejectedError, match="padding"):
        find_window([Picture(values, np.ones_like(values, bool))], [IDENTITY], (0.0, 100.0))


@pytest.mark.parametrize("dtype", LEVELS)
def test_stored_times_scale_is_the_normalised_value(dtype):
    rescaled = np.linspace(-500, 1500, 2001, dtype=np.float32)[None]
    window = IntensityWindow(0.0, 1000.0)
    stored = quantise(rescaled, window, dtype)
    assert stored.dtype == dtype
    normalised = stored / LEVELS[dtype]
    expected = np.clip(rescaled / 1000, 0, 1)
    assert np.abs(normalised - expected).max() <= 0.5 / LEVELS[dtype] + 1e-6
    assert (stored[0, 0], stored[0, -1]) == (0, LEVELS[dtype])


def test_padding_is_rescaled_to_the_low_end():
    values = np.array([[5, 9]], np.int16)
    found = rescale(Picture(values, np.array([[True, False]])), Rescale(2.0, 1.0), -7.0)
    assert found.tolist() == [[-7.0, 19.0]]
