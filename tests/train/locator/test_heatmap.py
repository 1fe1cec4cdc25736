import numpy as np
import pytest
import torch

from lumbar.train.locator.config import LocatorConfig
from lumbar.train.locator.heatmap import TruePlaces, grid, means, place_loss

CONFIG = LocatorConfig(slices=4, height=64, width=48, pixel_mm=2.0)
SHAPE = (2, 5, 4, 16, 12)


def random_heat(seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(SHAPE, generator=generator) * 3
    return scores.flatten(2).log_softmax(2).view(SHAPE)


def wanted(**changed):
    generator = torch.Generator().manual_seed(1)
    values = {
        "d": torch.rand(2, 5, generator=generator) * 9,
        "wh": torch.rand(2, 5, 2, generator=generator) * 40,
        "known": torch.ones(2, 5, dtype=torch.bool),
        "slices": torch.tensor([[0.0, 3, 6, 9], [1, 4, 7, -1]]),
        "slice_mm": torch.tensor([4.0, 3.0]),
    }
    return TruePlaces(**values | changed)


def present():
    return torch.tensor([[True] * 4, [True, True, True, False]])


def test_means_are_those_of_a_naive_loop():
    heat = random_heat().exp().numpy()
    found = means(random_heat(), CONFIG)
    for b, level, d in np.ndindex(2, 5, 4):
        one = heat[b, level, d]
        rows, columns = np.indices(one.shape)
        assert float(found.slice[b, level, d]) == pytest.approx(one.sum(), rel=1e-4)
        at_w = (one * ((columns + 0.5) * 4 - 0.5)).sum() / one.sum()
        at_h = (one * ((rows + 0.5) * 4 - 0.5)).sum() / one.sum()
        assert found.wh[b, level, d].tolist() == pytest.approx([at_w, at_h], rel=1e-4)


def test_the_grid_covers_the_crop_from_edge_to_edge():
    columns, rows = grid(random_heat(), CONFIG)
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (1.5, 45.5, 1.5, 61.5)


def test_an_unknown_disc_has_no_part_in_loss_or_gradient():
    known = torch.ones(2, 5, dtype=torch.bool)
    known[0, 2] = known[1, 4] = False
    scores = random_heat().requires_grad_()
    values = []
    for far in (0.0, 1e4):
        d, wh = wanted().d.clone(), wanted().wh.clone()
        d[0, 2], wh[1, 4] = far, far
        values.append(place_loss(scores, present(), wanted(d=d, wh=wh, known=known), CONFIG))
    assert values[0] == values[1]
    (gradient,) = torch.autograd.grad(values[0], scores)
    assert not gradient[0, 2].any()
    assert not gradient[1, 4].any()
    assert gradient[0, 1].any()
    nothing = place_loss(scores, present(), wanted(known=known & False), CONFIG)
    (gradient,) = torch.autograd.grad(nothing, scores)
    assert nothing == 0
    assert not gradient.any()


def test_the_loss_is_least_at_the_true_place_and_absent_slices_cost_nothing():
    scores = torch.zeros(SHAPE).masked_fill(~present()[:, None, :, None, None], -torch.inf)
    scores.requires_grad_()
    optimizer = torch.optim.Adam([scores], 0.3)
    truth = wanted(
        d=torch.tensor([[0.0, 2, 4, 6, 9], [1, 2, 3, 5, 7]]),
        wh=torch.tensor([5.0, 9, 20, 30, 40])[:, None].expand(2, 5, 2),
    )
    losses = []
    for _ in range(150):
        heat = scores.flatten(2).log_softmax(2).view(SHAPE)
        loss = place_loss(heat, present(), truth, CONFIG)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        assert not scores.grad.isnan().any()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
    found = means(heat.detach(), CONFIG)
    d = (found.slice * truth.slices[:, None]).sum(2)
    wh = (found.slice[..., None] * found.wh).sum(2)
    assert d.numpy() == pytest.approx(truth.d.numpy(), abs=0.3)
    assert wh.numpy() == pytest.approx(truth.wh.numpy(), abs=1.0)
