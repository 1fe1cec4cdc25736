import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from lumbar.train.optim import OptimConfig, learning_rate_factor, load_state, make_optimiser


def stages():
    return [[torch.nn.Parameter(torch.ones(2))] for _ in range(3)]


def test_a_stage_learns_slower_the_further_it_is_from_the_head():
    parts = stages()
    optimiser = make_optimiser(parts, OptimConfig(lr=1e-2, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert [rates[id(stage[0])] for stage in parts] == pytest.approx([2.5e-3, 5e-3, 1e-2])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 0.1)
    assert schedule.get_last_lr()[0] == pytest.approx(1e-3), "the first group is the head's"


def test_with_one_rate_there_is_one_group():
    (group,) = make_optimiser(stages(), OptimConfig(lr=1e-2)).param_groups
    assert len(group["params"]) == 3
    assert group["lr"] == 1e-2


def test_a_step_is_one_kernel_on_a_gpu_alone():
    assert make_optimiser(stages(), OptimConfig()).param_groups[0]["fused"] is None
    with FakeTensorMode():
        there = [[torch.nn.Parameter(torch.ones(2, device="cuda"))]]
        assert make_optimiser(there, OptimConfig()).param_groups[0]["fused"] is True
        mixed = [*there, [torch.nn.Parameter(torch.ones(2))]]
        assert make_optimiser(mixed, OptimConfig()).param_groups[0]["fused"] is None


def moved(optimiser, steps=3):
    """Take steps with gradients that change; return the weights."""
    weights = [p for group in optimiser.param_groups for p in group["params"]]
    for step in range(steps):
        for number, weight in enumerate(weights):
            weight.grad = torch.tensor([step + 1.0, number - 1.5])
        optimiser.step()
    return torch.stack([weight.detach().clone() for weight in weights])


@pytest.mark.parametrize("was_fused", [None, True])
@pytest.mark.parametrize("is_fused", [None, True])
def test_a_state_goes_on_on_another_device(was_fused, is_fused):
    # Torch has the one kernel on the CPU too: with it the state is as a GPU's.
    config = OptimConfig(lr=1e-2)

    def make(fused):
        optimiser = make_optimiser(stages(), config)
        (group,) = optimiser.param_groups
        group["fused"] = fused
        return optimiser

    whole = make(None)
    expected = torch.cat([moved(whole), moved(whole)])
    first, second = make(was_fused), make(is_fused)
    before = moved(first)
    for weight, value in zip(second.param_groups[0]["params"], before, strict=True):
        weight.data.copy_(value)
    state = copy.deepcopy(first.state_dict())
    load_state(second, state)
    (group,) = second.param_groups
    assert group["fused"] is is_fused
    assert state["param_groups"][0]["fused"] is was_fused, "the state was changed"
    torch.testing.assert_close(torch.cat([before, moved(second)]), expected)


@pytest.mark.parametrize("was_fused", [None, True])
def test_a_state_brings_its_number_of_steps_to_where_the_device_wants_it(was_fused):
    state = make_optimiser(stages(), OptimConfig()).state_dict()
    state["param_groups"][0]["fused"] = was_fused
    zeros = torch.zeros(2)
    state["state"] = {
        n: {"step": torch.tensor(3.0), "exp_avg": zeros, "exp_avg_sq": zeros} for n in range(3)
    }
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = [[torch.nn.Parameter(torch.ones(2, device="cuda"))] for _ in range(3)]
        optimiser = make_optimiser(there, OptimConfig())
        load_state(optimiser, state)
        assert {values["step"].device.type for values in optimiser.state.values()} == {"cuda"}


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
