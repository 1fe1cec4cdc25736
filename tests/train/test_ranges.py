import pytest

from lumbar.train.ranges import as_slice


@pytest.mark.parametrize("indices", [[0], (1, 2), [3, 4, 5, 6]])
def test_a_slice_takes_what_the_indices_take(indices):
    assert list(range(9))[as_slice(indices)] == list(indices)


@pytest.mark.parametrize("indices", [[0, 2], (2, 1), [1, 1]])
def test_indices_with_gaps_or_in_another_order_are_refused(indices):
    with pytest.raises(AssertionError, match="do not follow each other"):
        as_slice(indices)
