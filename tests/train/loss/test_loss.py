"""Every loss against a loop over cells, and what holds for all of them."""

import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lumbar.cache.names import CELLS, SeriesType
from lumbar.train.loss import CellLoss, LossConfig
from lumbar.train.loss.kinds import SOFTMAX_KINDS, loss_kind
from lumbar.train.reader.batch import one_hot
from lumbar.train.run.config import resolve_config

PAGE = (Path(__file__).parents[3] / "docs" / "losses.md").read_text()
KINDS = ("cross_entropy", "focal", "ordinal", "bce", "soft_disc")
PARTS = ("spinal", "foraminal", "subarticular")
SHOWN = {
    SeriesType.SAGITTAL_T1: "foraminal",
    SeriesType.SAGITTAL_T2: "spinal",
    SeriesType.AXIAL_T2: "subarticular",
}
"""A word in the names of the conditions that a series type is annotated for."""

VARIANTS = [
    {"kind": kind, "conditions": "all", **options}
    for kind in KINDS
    for options in (
        {"average": "parts", "label_smoothing": 0.1},
        {"average": "cells", "any_severe": 0.7},
        {"average": "parts", "any_severe": 1.0, "any_severe_temperature": 0.5},
    )
]
"""Configurations of every kind with every option."""


def make(kind="cross_entropy", series=SeriesType.SAGITTAL_T2, **options):
    return CellLoss(LossConfig(kind=kind, **options), [series])


def random_cells(seed, batch=3):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (batch, 25, 3)).astype(np.float32))
    return logits, torch.from_numpy(rng.integers(-1, 3, (batch, 25)))


def as_target(severity):
    return torch.from_numpy(one_hot(list(severity.numpy())))


def softmax(values):
    exponentials = [math.exp(x) for x in values]
    return [x / sum(exponentials) for x in exponentials]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def at_least(x0, x1, x2):
    """The probabilities of "worse than normal/mild" and of "severe"."""
    worse = x1 - x0
    return sigmoid(worse), sigmoid(worse - math.log(1 + math.exp(x1 - x2)))


def naive_cell_loss(three, grade, *, kind, of_disc, gamma=2.0):
    """The loss of a cell, were `grade` the true severity, as its description reads."""
    p = softmax(three)[grade]
    match kind:
        case "cross_entropy":
            return -math.log(p)
        case "focal":
            return -((1 - p) ** gamma) * math.log(p)
        case "bce":
            return -sum(
                math.log(sigmoid(x) if s == grade else 1 - sigmoid(x)) for s, x in enumerate(three)
            )
        case "ordinal":
            return -sum(math.log(q if grade > k else 1 - q) for k, q in enumerate(at_least(*three)))
        case "soft_disc":
            return -math.log(math.exp(three[grade]) / sum(math.exp(x) for x in of_disc))


def naive_probabilities(three, kind):
    if kind == "bce":
        sigmoids = [sigmoid(x) for x in three]
        return [x / sum(sigmoids) for x in sigmoids]
    if kind == "ordinal":
        worse, severe = at_least(*three)
        return [1 - worse, worse - severe, severe]
    return softmax(three)


def naive_loss(logits, severity, *, kind, weights, is_trained, average="cells", smoothing=0.0):
    """The loss cell by cell, in float64."""
    terms = {}
    for cells, grades in zip(logits.double().tolist(), severity.tolist(), strict=True):
        counted = [i for i, grade in enumerate(grades) if grade != -1 and is_trained(CELLS[i])]
        for cell in counted:
            neighbours = [other for other in counted if other % 5 == cell % 5]
            of_disc = [x for other in neighbours for x in cells[other]]
            each = [naive_cell_loss(cells[cell], s, kind=kind, of_disc=of_disc) for s in range(3)]
            loss = (1 - smoothing) * each[grades[cell]] + smoothing * sum(each) / 3
            weight = weights[grades[cell]]
            if kind == "soft_disc":
                weight /= len(neighbours)
            part = next(p for p in PARTS if p in CELLS[cell]) if average == "parts" else "all"
            terms.setdefault(part, []).append((weight * loss, weight))
    means = [sum(x for x, _ in term) / sum(w for _, w in term) for term in terms.values()]
    return sum(means) / len(means)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    series=st.sampled_from(sorted(SHOWN)),
    conditions=st.sampled_from(["shown", "all"]),
    weights=st.sampled_from([(1.0, 2.0, 4.0), (1.0, 1.0, 1.0), (0.5, 3.0, 2.0)]),
    average=st.sampled_from(["cells", "parts"]),
    smoothing=st.sampled_from([0.0, 0.15]),
)
def test_every_loss_equals_a_loop_over_cells(
    seed, kind, series, conditions, weights, average, smoothing
):
    logits, severity = random_cells(seed)
    severity[0, [2, 7, 17]] = 1
    loss = make(
        kind,
        series,
        weights=weights,
        conditions=conditions,
        average=average,
        label_smoothing=smoothing,
    )
    expected = naive_loss(
        logits,
        severity,
        kind=kind,
        weights=weights,
        is_trained=lambda cell: conditions == "all" or SHOWN[series] in cell,
        average=average,
        smoothing=smoothing,
    )
    target = as_target(severity)
    assert float(loss(logits.double(), target.double())) == pytest.approx(expected, rel=1e-6)
    assert float(loss(logits, target)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_as_described(kind):
    logits, _ = random_cells(3)
    got = make(kind).probabilities(logits).numpy()
    expected = [[naive_probabilities(three, kind) for three in cells] for cells in logits.tolist()]
    assert got == pytest.approx(np.array(expected), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1, 30, 200, 1e4])
def test_probabilities_sum_to_one_however_sure_the_network_is(kind, scale):
    logits = torch.cat([random_cells(4)[0] * scale, -random_cells(5)[0].abs() * scale])
    got = make(kind).probabilities(logits)
    assert (got >= 0).all()
    assert got.sum(dim=2).numpy() == pytest.approx(np.ones((6, 25)), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_raising_the_logit_of_a_severity_raises_its_probability(kind):
    logits, _ = random_cells(14)
    for severity in range(3):
        raised = logits.clone()
        raised[..., severity] += 0.1
        gain = make(kind).probabilities(raised) - make(kind).probabilities(logits)
        assert (gain[..., severity] > 0).all()


def test_the_kinds_of_softmax_have_its_probabilities_and_no_others():
    of_softmax = loss_kind(LossConfig()).log_probabilities
    same = [k for k in KINDS if loss_kind(LossConfig(kind=k)).log_probabilities is of_softmax]
    assert set(same) == set(SOFTMAX_KINDS)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradients_are_those_of_finite_differences(variant):
    logits, severity = random_cells(12, batch=2)
    logits = logits.double().requires_grad_()
    target = as_target(severity).double()
    loss = make(**variant).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (logits,))


@pytest.mark.parametrize("kind", ["cross_entropy", "ordinal", "soft_disc", "bce"])
@pytest.mark.parametrize("weights", [(1.0, 2.0, 4.0), (1.0, 1.0, 1.0)])
def test_the_best_constant_is_the_weighted_prior(kind, weights):
    severity = torch.tensor([0] * 6 + [1] * 3 + [2])[:, None].expand(-1, 25)
    target = as_target(severity).double()
    # Of a disc's cells all have the same prior, as the joint softmax needs it.
    logits = torch.zeros((1, 25, 3), dtype=torch.float64, requires_grad=True)
    loss = make(kind, conditions="all", weights=weights).double()
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9, tolerance_change=0)

    def closure():
        optimiser.zero_grad()
        value = loss(logits.expand(10, -1, -1), target)
        value.backward()
        return value

    optimiser.step(closure)
    counts = np.array([6, 3, 1]) * np.array(weights)
    prior = counts / counts.sum()
    got = loss.probabilities(logits.detach())[0].numpy()
    assert got == pytest.approx(np.tile(prior, (25, 1)), abs=1e-5)
    entropy = -(prior * np.log(prior)).sum()
    if kind == "cross_entropy":
        assert float(closure().detach()) == pytest.approx(entropy, rel=1e-6)
    if kind == "soft_disc":
        assert float(closure().detach()) == pytest.approx(entropy + math.log(5), rel=1e-6)


def test_a_severe_cell_weighs_four_and_a_moderate_one_two_times_a_normal_one():
    severity = torch.full((3, 25), -1)
    severity[range(3), range(3)] = torch.arange(3)
    target = as_target(severity)
    assert [float(make().weights(row[None])) for row in target] == [1, 2, 4]


def test_a_disc_weighs_one_however_many_of_its_cells_are_known():
    severity = torch.full((1, 25), -1)
    severity[0, [0, 5, 10]] = torch.tensor([0, 1, 2])
    severity[0, 3] = 2
    equal = make("soft_disc", conditions="all", weights=(1.0, 1.0, 1.0))
    assert float(equal.weights(as_target(severity))) == pytest.approx(2)
    weighted = make("soft_disc", conditions="all")
    assert float(weighted.weights(as_target(severity))) == pytest.approx((1 + 2 + 4) / 3 + 4)


def test_soft_targets_of_one_known_cell_a_disc_are_cross_entropy():
    logits, severity = random_cells(13)
    target = as_target(severity)
    assert float(make("soft_disc")(logits, target)) == pytest.approx(
        float(make("cross_entropy")(logits, target)), rel=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("average", ["cells", "parts"])
def test_unknown_and_untrained_cells_have_no_part_in_loss_or_gradient(kind, average):
    loss = make(kind, SeriesType.SAGITTAL_T1, average=average)
    logits, severity = random_cells(1)
    severity[:, [6, 12]] = 2
    severity[:, 7] = -1
    logits.requires_grad_()
    target = as_target(severity)
    value = loss(logits, target)
    value.backward()
    counts = (severity != -1) & torch.tensor(["foraminal" in cell for cell in CELLS])
    assert counts.any()
    assert not logits.grad[~counts].any()
    assert (logits.grad[counts].abs().sum(dim=1) > 0).all()
    for other in (1e4, -1e30, torch.inf, torch.nan):
        changed = torch.where(counts[..., None], logits.detach(), torch.tensor(other))
        changed.requires_grad_()
        same = loss(changed, target)
        same.backward()
        assert float(same.detach()) == float(value.detach())
        assert torch.equal(changed.grad, logits.grad)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("batch", [0, 3])
def test_a_batch_without_a_known_cell_costs_exactly_nothing(variant, batch):
    logits = random_cells(2, batch)[0].requires_grad_()
    value = make(**variant)(logits, torch.zeros((batch, 25, 3)))
    value.backward()
    assert float(value.detach()) == 0
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad.any()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_sums_and_weights_of_parts_add_up_to_those_of_the_batch(variant):
    logits, severity = random_cells(15, batch=7)
    severity[2] = -1
    severity[4, 5:] = -1
    target = as_target(severity)
    loss = make(**variant)
    rng = np.random.default_rng(16)
    for parts in (2, 3, 7):
        order = torch.from_numpy(rng.permutation(7))
        chunks = [(logits[part], target[part]) for part in order.chunk(parts)]
        sums = torch.stack([loss.sums(*chunk) for chunk in chunks]).sum(dim=0)
        weights = torch.stack([loss.weights(part) for _, part in chunks]).sum(dim=0)
        assert sums.numpy() == pytest.approx(loss.sums(logits, target).numpy(), rel=1e-5)
        whole = float(loss(logits, target))
        assert float(loss.total(sums, weights)) == pytest.approx(whole, rel=1e-5)
        # Each part's share of the whole, as processes and accumulation take it.
        shares = [float(loss.total(loss.sums(*chunk), weights)) for chunk in chunks]
        assert sum(shares) == pytest.approx(whole, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    average=st.sampled_from(["cells", "parts"]),
    share=st.floats(0.0625, 0.9375, width=32),
)
def test_a_shared_target_has_the_losses_of_both_in_their_shares(seed, kind, average, share):
    loss = make(kind, conditions="all", average=average, label_smoothing=0.05)
    logits, severity = random_cells(seed)
    # Which cells of a disc are known decides what a soft target shares: the same of both.
    other = torch.where(severity == -1, -1, (severity + random_cells(seed + 1)[1].abs()) % 3)
    own, other = as_target(severity), as_target(other)
    mixed = share * own + (1 - share) * other
    for value in (lambda t: loss.sums(logits, t), loss.weights):
        expected = share * value(own) + (1 - share) * value(other)
        assert value(mixed).numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "soft_disc"])
def test_mixing_is_linear_also_where_one_of_the_two_is_unknown(kind):
    loss = make(kind, conditions="all")
    logits, severity = random_cells(17)
    own, other = as_target(severity), as_target(random_cells(18)[1])
    mixed = loss.sums(logits, 0.25 * own + 0.75 * other)
    expected = 0.25 * loss.sums(logits, own) + 0.75 * loss.sums(logits, other)
    assert mixed.numpy() == pytest.approx(expected.numpy(), rel=1e-5)


def test_a_cell_known_of_one_of_two_mixed_samples_weighs_its_share():
    target = torch.zeros((1, 25, 3))
    target[0, 0, 2], target[0, 1, 0] = 0.25, 1.0
    assert make().weights(target).tolist() == [2]


def test_one_hot_cross_entropy_is_that_of_torch():
    weights = (0.5, 3.0, 2.0)
    loss = make(conditions="all", weights=weights)
    logits, severity = random_cells(6)
    expected = functional.cross_entropy(
        logits.flatten(0, 1), severity.flatten(), torch.tensor(weights), ignore_index=-1
    )
    assert float(loss(logits, as_target(severity))) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_cross_entropy_is_that_of_torch(smoothing):
    logits, _ = random_cells(7)
    target = random_cells(8)[0].softmax(dim=2)
    loss = make(conditions="all", weights=(1.0, 1.0, 1.0), label_smoothing=smoothing)
    expected = functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(0, 1), label_smoothing=smoothing
    )
    assert float(loss(logits, target)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy_is_that_of_torch(soft):
    logits, severity = random_cells(9)
    target = random_cells(10)[0].softmax(dim=2) if soft else as_target(severity.clamp(min=0))
    loss = make("bce", conditions="all", weights=(1.0, 1.0, 1.0))
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert float(loss(logits, target)) == pytest.approx(float(each.sum(dim=2).mean()), rel=1e-5)


def test_focal_loss_without_gamma_is_cross_entropy_and_with_it_is_less():
    logits, severity = random_cells(19)
    target = as_target(severity)
    plain = float(make()(logits, target))
    assert float(make("focal", focal_gamma=0.0)(logits, target)) == pytest.approx(plain, rel=1e-6)
    by_gamma = [float(make("focal", focal_gamma=g)(logits, target)) for g in (0.5, 1.0, 2.0, 5.0)]
    assert [plain, *by_gamma] == sorted([plain, *by_gamma], reverse=True)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_any_precision_are_summed_up_in_float32(variant, dtype):
    loss = make(**variant)
    logits, severity = random_cells(11)
    logits = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        value = loss(logits, as_target(severity))
    value.backward()
    assert value.dtype == torch.float32
    assert logits.grad.dtype == dtype
    assert torch.isfinite(logits.grad).all()
    expected = float(loss(logits.detach().float(), as_target(severity)))
    assert float(value.detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_network_that_is_sure_has_a_finite_loss_and_gradient(variant, dtype):
    patterns = torch.tensor(list(product((-6e4, -20.0, 0.0, 20.0, 6e4), repeat=3)))
    for grade in range(3):
        logits = patterns[:, None].expand(-1, 25, -1).to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            value = make(**variant)(logits, as_target(torch.full((len(patterns), 25), grade)))
        value.backward()
        assert torch.isfinite(value)
        assert float(value.detach()) > 0
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_a_network_that_is_sure_and_wrong_pays_for_every_unit(kind):
    logits = torch.full((1, 25, 3), -1e4)
    logits[..., 0] = 1e4
    value = make(kind)(logits, as_target(torch.full((1, 25), 2)))
    assert float(value) == pytest.approx(2e4, rel=1e-5)


def test_the_loss_moves_its_tables_with_it_and_keeps_them_out_of_checkpoints():
    loss = make(any_severe=1.0)
    assert loss.state_dict() == {}
    assert {buffer.dtype for buffer in loss.double().buffers()} == {torch.float64, torch.bool}


def test_the_examples_of_the_page_run(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "losses.md", "exec"), {})
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "run.toml").write_text(example)
    config = resolve_config("study", file=tmp_path / "run.toml")
    assert config.loss.weights == (1.0, 1.0, 1.0)
    assert config.finish.loss == LossConfig(average="parts", any_severe=1.0)


def test_the_page_has_every_kind():
    assert tuple(re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE)) == KINDS
