"""Stacks and their usual step."""

import numpy as np
import pytest


@pytest.mark.parametrize("missing", [1, 2])
def test_of_three_slices_with_one_missing_the_smaller_step_is_usual(tools, tmp_path, missing):
    phantom = tools.phantom
    phantom.write(tmp_path / "src")
    kept = {1, 2, 3, 4} - {missing + 1}
    for number in range(1, 8):
        if number not in kept:
            (tmp_path / "src" / f"{number}.dcm").unlink()
    attributes = tools.cached(tmp_path / "src", tmp_path / "out").attributes(0)
    assert attributes.spacing_mm[0] == 4.0
    assert attributes.flags == ("gap", "few_slices")
    assert all(np.allclose(stack.affine[:3, 0], phantom.step) for stack in attributes.stacks)
