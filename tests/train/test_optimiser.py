import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lumbar.train.optim import OptimConfig, load_state, make_optimiser


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
