import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lumbar.cache.names import CELLS, SeriesType
from lumbar.train.batch import one_hot
from lumbar.train.loss import CellLoss, LossConfig

SHOWN = {
    SeriesType.SAGITTAL_T1: "foraminal",
    SeriesType.SAGITTAL_T2: "spinal",
    SeriesType.AXIAL_T2: "subarticular",
}
"""A word in the names of the conditions that a series type is annotated for."""


def make(kind="cross_entropy", series=SeriesType.SAGITTAL_T2, **options):
    return CellLoss(LossConfig(kind=kind, **options), [series])


def draw(seed, batch=3):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (batch, 25, 3)).astype(np.float32))
    return logits, torch.from_numpy(rng.integers(-1, 3, (batch, 25)))


def as_target(severity):
    return torch.from_numpy(one_hot(list(severity.numpy())))


def unnormalised(loss, logits, target):
    """Return the sum that the mean is made of, in double precision."""
    return float((loss(logits, target) * loss.weight(target).sum()).double())


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
    got = make(kind, series, weights=weights, conditions=conditions)(logits, as_target(severity))
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
    assert loss.weight(as_target(severity))[0].tolist() == [1, 2, 4] + [0] * 22


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_unknown_and_untrained_cells_have_no_part_in_loss_or_gradient(kind):
    loss = make(kind, SeriesType.SAGITTAL_T1)
    logits, severity = draw(1)
    severity[:, [6, 12]] = 2
    logits.requires_grad_()
    target = as_target(severity)
    value = loss(logits, target)
    value.backward()
    counts = (severity != -1) & torch.tensor(["foraminal" in cell for cell in CELLS])
    assert counts.any()
    assert not logits.grad[~counts].any()
    assert (logits.grad[counts] != 0).all()
    changed = torch.where(counts[..., None], logits.detach(), torch.tensor(1e4))
    assert float(loss(changed, target)) == float(value.detach())


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_a_batch_without_a_known_cell_costs_exactly_nothing(kind):
    logits, severity = draw(2)
    severity[:, :5] = -1
    logits.requires_grad_()
    value = make(kind)(logits, as_target(severity))
    value.backward()
    assert float(value.detach()) == 0
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad.any()


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_an_empty_batch_costs_nothing(kind):
    logits = torch.zeros((0, 25, 3), requires_grad=True)
    value = make(kind)(logits, torch.zeros((0, 25, 3)))
    value.backward()
    assert float(value.detach()) == 0


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["cross_entropy", "bce"]),
    share=st.floats(0, 1, width=32),
)
def test_a_shared_target_has_the_losses_of_both_in_their_shares(seed, kind, share):
    loss = make(kind, conditions="all")
    logits, severity = draw(seed)
    own, other = as_target(severity), as_target(draw(seed + 1)[1])
    got = unnormalised(loss, logits, share * own + (1 - share) * other)
    parts = [unnormalised(loss, logits, target) for target in (own, other)]
    assert got == pytest.approx(share * parts[0] + (1 - share) * parts[1], rel=1e-4)


def test_a_cell_known_of_one_of_two_mixed_samples_weighs_its_share():
    target = torch.zeros((1, 25, 3))
    target[0, 0, 2], target[0, 1, 0] = 0.25, 1.0
    assert make().weight(target)[0, :3].tolist() == [1, 1, 0]


def test_one_hot_cross_entropy_is_that_of_torch():
    weights = (0.5, 3.0, 2.0)
    loss = make(conditions="all", weights=weights)
    logits, severity = draw(6)
    expected = functional.cross_entropy(
        logits.flatten(0, 1), severity.flatten(), torch.tensor(weights), ignore_index=-1
    )
    assert float(loss(logits, as_target(severity))) == pytest.approx(float(expected), rel=1e-5)


def test_soft_cross_entropy_is_that_of_torch():
    logits, _ = draw(7)
    target = draw(8)[0].softmax(dim=2)
    loss = make(conditions="all", weights=(1.0, 1.0, 1.0))
    expected = functional.cross_entropy(logits.flatten(0, 1), target.flatten(0, 1))
    assert float(loss(logits, target)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy_is_that_of_torch(soft):
    logits, severity = draw(9)
    target = draw(10)[0].softmax(dim=2) if soft else as_target(severity.clamp(min=0))
    loss = make("bce", conditions="all", weights=(1.0, 1.0, 1.0))
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert float(loss(logits, target)) == pytest.approx(float(each.sum(dim=2).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_logits_of_any_precision_are_summed_up_in_float32(kind, dtype):
    loss = make(kind)
    logits, severity = draw(11)
    logits = logits.to(dtype).requires_grad_()
    value = loss(logits, as_target(severity))
    value.backward()
    assert logits.grad.dtype == dtype
    assert torch.isfinite(logits.grad).all()
    expected = float(loss(logits.detach().float(), as_target(severity)))
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_a_network_that_is_sure_and_wrong_has_a_finite_loss_and_gradient(kind):
    logits = torch.full((1, 25, 3), -1e4)
    logits[..., 0] = 1e4
    logits.requires_grad_()
    value = make(kind)(logits, as_target(torch.full((1, 25), 2)))
    value.backward()
    assert float(value.detach()) == pytest.approx(2e4, rel=1e-5)
    assert torch.isfinite(logits.grad).all()


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
