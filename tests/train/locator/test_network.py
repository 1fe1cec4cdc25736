import pytest
import torch
from torch.nn.functional import pad

from lumbar.train.locator.network import LocatorNetwork


@pytest.fixture
def network():
    torch.manual_seed(0)
    return LocatorNetwork().eval()


def looked_at(network, image, lengths):
    depth = image.shape[1]
    present = torch.arange(depth) < lengths[:, None]
    position = (torch.arange(depth) + 0.5) / lengths[:, None] * present
    with torch.inference_mode():
        return network(image, present, position, lengths)


# Neither a multiple of the coarsest stride nor of the one of the maps that are given.
@pytest.mark.parametrize("size", [(64, 32), (50, 37)])
def test_chances_sum_to_one_and_more_filling_changes_nothing(network, size):
    image = torch.rand(3, 6, 1, *size)
    lengths = torch.tensor([6, 1, 4])
    chances = looked_at(network, image, lengths)
    assert chances.shape == (3, 5, 6, -(-size[0] // 4), -(-size[1] // 4))
    assert chances.exp().sum(dim=(2, 3, 4)).numpy() == pytest.approx(1, abs=1e-4)
    assert (chances[1, :, 1:] == -torch.inf).all()
    # The padding changes nothing.
    filled = pad(image, [0, 0] * 3 + [0, 3], value=7.0)
    filled[1, 1:] = 9.0
    longer = looked_at(network, filled, lengths)
    torch.testing.assert_close(longer[:, :, :6], chances)
    assert (longer[:, :, 6:] == -torch.inf).all()


def test_a_slice_alone_does_not_say_its_level(network):
    """All slices of a series have a say in which of them shows which disc."""
    image = torch.rand(1, 6, 1, 32, 32)
    other = image.clone()
    other[0, 5] = torch.rand(1, 32, 32)
    first, second = (looked_at(network, one, torch.tensor([6])) for one in (image, other))
    shift = (first - second)[0, :, 0].flatten(1)
    # Within a slice that is the same only the chance of the slice changes, for each level its own.
    assert shift.std(dim=1).max() < 1e-5
    assert shift.mean(dim=1).std() > 1e-4
