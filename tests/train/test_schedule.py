from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumbar.train.optim import learning_rate_factor


def factors(steps, warmup):
    return [learning_rate_factor(step, steps=steps, warmup=warmup) for step in range(steps)]


def test_the_factors_of_ten_steps():
    # Two steps up to the peak at the third, then half a cosine over eight steps.
    assert factors(10, 0.2) == pytest.approx(
        [1 / 3, 2 / 3, 1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060],
        abs=1e-6,
    )
    assert factors(4, 0.0) == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


@given(steps=st.integers(1, 400), warmup=st.floats(0, 0.99))
def test_the_rate_rises_to_its_peak_once_and_is_never_zero(steps, warmup):
    values = factors(steps, warmup)
    top = values.index(max(values))
    assert all(0 < value <= 1 for value in values)
    assert all(a < b for a, b in pairwise(values[: top + 1]))
    assert all(a > b for a, b in pairwise(values[top:]))
    if warmup * steps <= steps - 1:
        assert max(values) == 1


@given(steps=st.integers(1, 400), warmup=st.floats(0, 0.99))
def test_after_the_last_step_the_rate_is_zero_or_stays_at_the_peak_of_a_run_of_warming(
    steps, warmup
):
    after = learning_rate_factor(steps, steps=steps, warmup=warmup)
    assert after == pytest.approx(1 if warmup * steps > steps - 1 else 0, abs=1e-12)


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0.3), (37, 0.1), (50, 0.0)])
def test_one_cycle_has_the_numbers_of_torch(steps, warmup):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1.0, total_steps=steps, pct_start=warmup, cycle_momentum=False
    )
    for step in range(steps):
        ours = learning_rate_factor(step, steps=steps, warmup=warmup, kind="one_cycle")
        if warmup:
            assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimiser.step()
        if step + 1 < steps:
            theirs.step()


def test_a_constant_rate_stays_after_its_warm_up():
    values = [learning_rate_factor(s, steps=10, warmup=0.2, kind="constant") for s in range(10)]
    assert values == pytest.approx([1 / 3, 2 / 3] + [1] * 8)
