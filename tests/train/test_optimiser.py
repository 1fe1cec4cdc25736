import pytest
import torch

from lumbar.train.optimiser import OptimConfig, make_optimiser


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
