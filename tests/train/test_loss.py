import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.cache.names import CELLS, SeriesType
from lumbar.train.loss import CellLoss, LossConfig

SHOWN = {
    SeriesType.SAGITTAL_T1: "foraminal",
    SeriesType.SAGITTAL_T2: "spinal",
    SeriesType.AXIAL_T2: "subarticular",
}
"""A word in the names of the conditions that a series type is annotated for."""


def make(kind="cross_entropy", series=SeriesType.SAGITTAL_T2, **options):
    return CellLoss(LossConfig(kind=kind, **options), series)


def draw(seed, batch=3):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (batch, 25, 3)).astype(np.float32))
    return logits, torch.from_numpy(rng.integers(-1, 3, (batch, 25)))


def naive_loss(logits, severity, *, kind, weights, is_trained):
    """The loss cell by cell, as its description reads."""
    total = weight_sum = 0.0
    for cells, grades in zip(logits.double().tolist(), severity.tolist(), strict=True):
        for cell, (three, grade) in enumerate(zip(cells, grades, strict=True)):
            if grade == -1 or not is_trained(CELLS[cell]):
                continue
            if kind == "cross_entropy":
                loss = math.log(sum(math.exp(x) for x in three)) - three[grade]
            else:
                loss = sum(
                    math.log1p(math.exp(-x if s == grade else x)) for s, x in enumerate(three)
                )
            total += weights[grade] * loss
            weight_sum += weights[grade]
    return total / weight_sum


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["cross_entropy", "bce"]),
    series=st.sampled_from(sorted(SHOWN)),
    conditions=st.sampled_from(["shown", "all"]),
    weights=st.sampled_from([(1.0, 2.0, 4.0), (1.0, 1.0, 1.0), (0.5, 3.0, 2.0)]),
)
def test_the_loss_equals_a_loop_over_cells(seed, kind, series, conditions, weights):
    logits, severity = draw(seed)
    severity[0, [2, 7, 17]] = 1
    got = make(kind, series, weights=weights, conditions=conditions)(logits, severity)
    expected = naive_loss(
        logits,
        severity,
        kind=kind,
        weights=weights,
        is_trained=lambda cell: conditions == "all" or SHOWN[series] in cell,
    )
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_a_severe_cell_weighs_four_and_a_moderate_one_two_times_a_normal_one():
    loss = make()
    severity = torch.full((1, 25), -1)
    severity[0, :3] = torch.tensor([0, 1, 2])
    assert loss.weight(severity)[0].tolist() == [1, 2, 4] + [0] * 22


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_unknown_and_untrained_cells_have_no_part_in_loss_or_gradient(kind):
    loss = make(kind, SeriesType.SAGITTAL_T1)
    logits, severity = draw(1)
    severity[:, [6, 12]] = 2
    logits.requires_grad_()
    value = loss(logits, severity)
    value.backward()
    counts = (severity != -1) & torch.tensor(["foraminal" in cell for cell in CELLS])
    assert counts.any()
    assert not logits.grad[~counts].any()
    assert (logits.grad[counts] != 0).all()
    changed = torch.where(counts[..., None], logits.detach(), torch.tensor(1e4))
    assert float(loss(changed, severity)) == float(value.detach())


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_a_batch_without_a_known_cell_costs_exactly_nothing(kind):
    logits, severity = draw(2)
    severity[:, :5] = -1
    logits.requires_grad_()
    value = make(kind)(logits, severity)
    value.backward()
    assert float(value.detach()) == 0
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad.any()


def test_probabilities_are_softmax_or_shares_of_sigmoids():
    logits, _ = draw(3)
    three = logits[0, 0].tolist()
    exponentials = [math.exp(x) for x in three]
    sigmoids = [1 / (1 + math.exp(-x)) for x in three]
    got = make().probabilities(logits)[0, 0].tolist()
    assert got == pytest.approx([x / sum(exponentials) for x in exponentials], rel=1e-5)
    got = make("bce").probabilities(logits)[0, 0].tolist()
    assert got == pytest.approx([x / sum(sigmoids) for x in sigmoids], rel=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
@pytest.mark.parametrize("scale", [1, 30, 200, 1e4])
def test_probabilities_sum_to_one_however_sure_the_network_is(kind, scale):
    logits = torch.cat([draw(4)[0] * scale, -draw(5)[0].abs() * scale])
    got = make(kind).probabilities(logits)
    assert (got >= 0).all()
    assert got.sum(dim=2).numpy() == pytest.approx(np.ones((6, 25)), abs=1e-5)


def test_the_loss_moves_its_tables_with_it_and_keeps_them_out_of_checkpoints():
    loss = make()
    assert loss.state_dict() == {}
    assert {buffer.dtype for buffer in loss.double().buffers()} == {torch.float64, torch.bool}
