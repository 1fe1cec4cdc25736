"""Numbers whose type and sign disagree: their bits are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.pipeline.dicom.elements import same_bits


@given(st.integers(2, 16), st.booleans(), st.data())
def test_a_value_is_found_again_however_it_was_written(stored, signed, data):
    low = -(2 ** (stored - 1)) if signed else 0
    value = data.draw(st.integers(low, low + 2**stored - 1))
    for written in (value, value & 0xFFFF, (value + 2**15) % 2**16 - 2**15):
        assert same_bits(written, stored, 16, is_signed=signed) in {value, written}
    written = value & 0xFFFF if signed else (value + 2**15) % 2**16 - 2**15
    if not low <= written < low + 2**stored:
        assert same_bits(written, stored, 16, is_signed=signed) == value


@pytest.mark.parametrize("written", [65535, 63536, -40000])
def test_a_value_that_no_pixel_has_stays_itself(written):
    assert same_bits(written, 12, 16, is_signed=False) == written
