import math

import pytest
import torch

from lumbar.train.model.anatomy import ANATOMY, Region
from lumbar.train.model.attention import RegionAttention, SlicePool, WholeSlice


def coordinates(height, width, field_mm):
    """Return a feature map of two channels: millimetres down and across from the centre."""
    down = (torch.arange(height) + 0.5) / height - 0.5
    across = (torch.arange(width) + 0.5) / width - 0.5
    grid = torch.meshgrid(down * field_mm[0], across * field_mm[1], indexing="ij")
    return torch.stack(grid)[None]


@pytest.mark.parametrize("series", ANATOMY)
@pytest.mark.parametrize("size", [(64, 48), (24, 40)])
def test_untrained_attention_pools_the_usual_places(series, size):
    regions, field_mm = ANATOMY[series].regions, (256.0, 200.0)
    attention = RegionAttention(2, regions, field_mm=field_mm)
    seen = attention(coordinates(*size, field_mm))
    assert seen.shape == (1, len(regions), attention.channels)
    for place, region in zip(seen[0, :, :2], regions, strict=True):
        assert place.tolist() == pytest.approx(region.centre_mm, abs=1.0)


def test_the_spread_is_that_of_a_gaussian():
    field_mm = (300.0, 300.0)
    attention = RegionAttention(2, (Region((20.0, -10.0), (15.0, 30.0)),), field_mm=field_mm)
    squares = (coordinates(100, 100, field_mm) - torch.tensor([20.0, -10]).view(1, 2, 1, 1)) ** 2
    assert attention(squares)[0, 0, :2].sqrt().tolist() == pytest.approx([15, 30], rel=0.02)


def test_what_the_features_say_outweighs_the_place():
    attention = RegionAttention(1, (Region((0.0, 0.0), (20.0, 20.0)),), field_mm=(100.0, 100.0))
    features = torch.zeros(1, 1, 10, 10)
    features[0, 0, 1, 8] = 1
    before = attention(features)
    torch.nn.init.constant_(attention.score.weight, 30.0)
    after = attention(features)
    assert before[0, 0, 0] < 0.05
    assert after[0, 0, 0] > 0.95
    assert after[0, 0, 1] == before[0, 0, 1], "the peak needs no attention"


def test_the_peak_is_the_largest_feature_weighted_by_nearness():
    torch.manual_seed(0)
    region, field_mm = Region((-30.0, 12.0), (18.0, 25.0)), (160.0, 120.0)
    attention = RegionAttention(3, (region,), field_mm=field_mm)
    features = torch.rand(2, 3, 9, 7)
    features[0, 1, 2, 5] = 20
    got = attention(features)[:, 0, 3:]
    places = coordinates(9, 7, field_mm)[0].flatten(1).T.tolist()
    for n in range(2):
        for c in range(3):
            expected = max(
                value
                * math.exp(-0.5 * ((down_mm + 30) / 18) ** 2 - 0.5 * ((across_mm - 12) / 25) ** 2)
                for value, (down_mm, across_mm) in zip(
                    features[n, c].flatten().tolist(), places, strict=True
                )
            )
            assert got[n, c].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_slices_are_looked_at_by_their_position_and_absent_ones_never(pooling):
    position = (torch.arange(40) + 0.5)[None] / 40
    pool = SlicePool(1, region=(0, 1, 0), pooling=pooling, position=(0.3, 0.5, 0.7), spread=0.05)
    slices = torch.stack([position, position + 10], dim=1)[..., None]
    everywhere = torch.ones(1, 40, dtype=torch.bool)
    got = pool(slices, position, everywhere)[0, :, 0]
    assert got.tolist() == pytest.approx([0.3, 10.5, 0.7], abs=0.01)
    first_half = position < 0.5
    slices[:, :, 20:] = 1e30
    got = pool(slices, position, first_half)[0, :, 0]
    assert got[0].item() == pytest.approx(0.3, abs=0.01)
    assert got[2].item() < 0.5


def test_what_slices_say_outweighs_their_position():
    position = (torch.arange(10) + 0.5)[None] / 10
    pool = SlicePool(1, region=(0,), pooling="attention", position=(0.2,), spread=0.1)
    slices = torch.zeros(1, 1, 10, 1)
    slices[0, 0, 8] = 1
    everywhere = torch.ones(1, 10, dtype=torch.bool)
    assert pool(slices, position, everywhere).item() < 0.05
    torch.nn.init.constant_(pool.score.weight, 40.0)
    assert pool(slices, position, everywhere).item() > 0.95


def test_the_peak_of_slices_is_the_largest_of_each_channel_weighted_by_nearness():
    torch.manual_seed(0)
    position = torch.rand(2, 6)
    present = torch.arange(6) < torch.tensor([[4], [0]])
    slices = torch.rand(2, 2, 6, 3)
    pool = SlicePool(3, region=(1, 0), pooling="max", position=(0.3, 0.8), spread=0.2)
    got = pool(slices, position, present)
    assert not got[1].any()
    for query, (region, place) in enumerate([(1, 0.3), (0, 0.8)]):
        near = [math.exp(-0.5 * ((p - place) / 0.2) ** 2) for p in position[0].tolist()]
        for channel in range(3):
            values = slices[0, region, :, channel].tolist()
            expected = max(v * n for v, n in zip(values[:4], near[:4], strict=True))
            assert got[0, query, channel].item() == pytest.approx(expected, rel=1e-5)


def test_without_positions_pooling_is_over_the_slices_that_are_there():
    slices = torch.randn(2, 1, 5, 3)
    present = torch.arange(5) < torch.tensor([[3], [5]])
    position = torch.zeros(2, 5)
    for pooling, of in (("mean", lambda x: x.mean(0)), ("max", lambda x: x.amax(0))):
        got = SlicePool(3, region=(0,), pooling=pooling)(slices, position, present)[:, 0]
        for sample, length in enumerate((3, 5)):
            assert torch.allclose(got[sample], of(slices[sample, 0, :length]), atol=1e-6)


def test_the_whole_slice_is_its_mean():
    features = torch.rand(3, 5, 4, 6)
    assert torch.allclose(WholeSlice(5)(features)[:, 0], features.flatten(2).mean(dim=2))
