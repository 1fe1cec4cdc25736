"""Options of `PreprocessConfig` that contradict each other."""

import pytest

from lumbar.pipeline.config import PreprocessConfig


@pytest.mark.parametrize(
    "options",
    [
        {"grid": "spacing"},
        {"spacing_mm": 1.0},
        {"percentiles": (99, 1)},
        {"percentiles": (-1, 99)},
        {"size": 0},
        {"dtype": "float32"},
        {"colour": "blue"},
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(options):
    with pytest.raises(ValueError, match="PreprocessConfig"):
        PreprocessConfig(**options)
