import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lumbar.train.run.network import build_model
from lumbar.train.trainer.moving_average import MovingAverage

DECAY = 0.9


@pytest.fixture
def network(small_config):
    torch.manual_seed(0)
    return build_model(small_config())


def change(network, seed):
    """Change all weights and buffers, as a step does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator))
            elif not value.ndim:
                value.add_(1)


def by_torch(network):
    """Return torch's average with the same rule: what is whole is taken as it is."""

    @torch.no_grad()
    def move(average, now, _):
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, now, 1 - DECAY)
        else:
            torch._foreach_copy_(average, now)

    return AveragedModel(network, multi_avg_fn=move, use_buffers=True)


def test_it_is_torchs_average_bit_for_bit_and_takes_over_its_state(network):
    theirs = by_torch(network)
    ours = MovingAverage(network, decay=DECAY)
    for step in range(3):
        change(network, step)
        theirs.update_parameters(network)
        ours.update(network)
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())

    resumed = MovingAverage(network, decay=DECAY)
    resumed.load_state_dict(expected)
    change(network, 9)
    theirs.update_parameters(network)
    resumed.update(network)
    assert int(resumed.n_averaged) == 4
    for name, value in theirs.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_average_is_no_part_of_the_network(network):
    average = MovingAverage(network, decay=DECAY)
    change(network, 0)
    average.update(network)
    before = [value.clone() for value in average.module.parameters()]
    change(network, 1)
    assert all(map(torch.equal, average.module.parameters(), before))
    assert all(p.requires_grad for p in average.module.parameters())


def test_the_weights_of_its_sequence_are_put_together(network, monkeypatch):
    joined = []

    def join(part):
        joined.append(part)

    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", join)
    average = MovingAverage(network, decay=DECAY)
    assert average.module.sequence.recurrent in joined


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")
def test_on_a_gpu_its_sequence_runs_without_a_warning(network):
    # A warning is an error here; cuDNN's is of weights that do not lie together.
    average = MovingAverage(network.cuda(), decay=DECAY)
    average.update(network)
    features = torch.rand(2, 5, average.module.pool.channels, device="cuda")
    average.module.sequence(features, torch.tensor([5, 3]))
