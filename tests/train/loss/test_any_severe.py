"""The any-severe term against the metric's fourth part, and what it asks of a configuration."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.train.evaluation.metric import score
from lumbar.train.loss import CellLoss, LossConfig
from lumbar.train.loss.any_severe import worst_level
from lumbar.train.reader.batch import one_hot
from lumbar.train.run.config import resolve_config

KINDS = ("cross_entropy", "focal", "ordinal", "bce", "soft_disc")
T1, T2, AXIAL = SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2


def make(any_severe=1.0, types=(T2,), **options):
    return CellLoss(LossConfig(any_severe=any_severe, **options), types)


def random_cells(seed, batch=8, unknown=0.3):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (batch, 25, 3)))
    severity = rng.choice(np.array([-1, 0, 1, 2], np.int8), (batch, 25), p=[unknown, 0.5, 0.1, 0.1])
    severity[0, :5] = -1
    severity[1, :5] = [-1, 2, 0, -1, 2]
    return logits, severity


def as_target(severity):
    return torch.from_numpy(one_hot(list(severity))).double()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS))
def test_the_term_is_the_metrics_part_of_the_same_probabilities(seed, kind):
    logits, severity = random_cells(seed, unknown=0.3)
    loss = make(kind=kind).double()
    sums, weights = loss.sums(logits, as_target(severity)), loss.weights(as_target(severity))
    expected = score(loss.probabilities(logits).numpy(), severity).any_severe_spinal
    assert float(sums[1] / weights[1]) == pytest.approx(expected, rel=1e-9)


def test_the_mean_of_the_parts_with_it_is_the_metric():
    logits, severity = random_cells(1)
    loss = make(types=tuple(SeriesType)[:3], average="parts").double()
    expected = score(loss.probabilities(logits).numpy(), severity)
    terms = loss.sums(logits, as_target(severity)) / loss.weights(as_target(severity))
    assert terms.tolist() == pytest.approx(list(expected.to_json().values())[:4], rel=1e-9)
    assert float(loss(logits, as_target(severity))) == pytest.approx(expected.total, rel=1e-9)


def test_a_part_that_a_batch_lacks_is_left_out_as_in_the_metric():
    logits, severity = random_cells(2)
    severity[:, 5:15] = -1
    loss = make(types=(T1, T2, AXIAL), average="parts").double()
    expected = score(loss.probabilities(logits).numpy(), severity).total
    assert float(loss(logits, as_target(severity))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weight", [0.25, 1.0, 3.0])
def test_its_weight_is_beside_that_of_the_cells_which_is_one(weight):
    logits, severity = random_cells(3)
    target = as_target(severity)
    cells = float(make(any_severe=0.0).double()(logits, target))
    part = score(make().double().probabilities(logits).numpy(), severity).any_severe_spinal
    got = float(make(any_severe=weight).double()(logits, target))
    assert got == pytest.approx((cells + weight * part) / (1 + weight), rel=1e-6)


def gradient(loss, logits, severity):
    logits = logits.clone().requires_grad_()
    loss.sums(logits, as_target(severity))[1].backward()
    return logits.grad[:, :5].abs().sum(dim=2)


def test_the_maximum_moves_the_level_that_is_most_severe_and_the_smooth_one_all_that_are_known():
    logits, severity = random_cells(4)
    known = torch.from_numpy(severity[:, :5] != -1)
    log_p = logits[:, :5].log_softmax(dim=2)[..., 2].where(known, torch.tensor(-np.inf))
    hard = gradient(make().double(), logits, severity)
    assert not hard[0].any()
    for row in range(1, len(hard)):
        moved = hard[row].nonzero().ravel().tolist()
        assert moved == ([int(log_p[row].argmax())] if known[row].any() else [])
    smooth = gradient(make(any_severe_temperature=1.0).double(), logits, severity)
    assert torch.equal(smooth > 0, known)


def test_the_smooth_maximum_is_never_below_the_maximum_and_approaches_it():
    logits, severity = random_cells(5)
    severity[:, :5] = 2
    target = as_target(severity)

    def term(temperature):
        return float(make(any_severe_temperature=temperature).double().sums(logits, target)[1])

    terms = [term(t) for t in (2.0, 1.0, 0.5, 0.1, 0.0)]
    assert terms == sorted(terms), "all are severe: the larger the odds, the smaller the loss"
    assert term(0.005) == pytest.approx(terms[-1], rel=1e-4)


def test_the_smooth_maximum_of_a_single_known_level_is_that_level():
    logits, severity = random_cells(6)
    severity[:, 1:5] = -1
    target = as_target(severity)
    hard, smooth = make().double(), make(any_severe_temperature=2.0).double()
    assert smooth.sums(logits, target).tolist() == pytest.approx(hard.sums(logits, target).tolist())


def test_the_worst_level_is_one_hot_and_shared_between_mixed_samples():
    _, severity = random_cells(7, batch=40)
    target = as_target(severity)[:, :5]
    worst = severity[:, :5].max(axis=1)
    assert worst_level(target).tolist() == one_hot([worst])[0].tolist()
    mixed = 0.25 * target[:-1] + 0.75 * target[1:]
    got = worst_level(mixed)
    assert (got >= 0).all()
    # A sample that is mixed with its own like stays what it was.
    same = torch.from_numpy((worst[:-1] == worst[1:]) & (worst[1:] >= 0))
    assert (got[same].argmax(dim=1).numpy() == worst[1:][same.numpy()]).all()
    only = worst_level(0.25 * target[:1] + 0.75 * target[1:2])
    assert only.tolist() == [[0, 0, 0.75]]


def test_other_conditions_have_no_part_in_it():
    logits, severity = random_cells(8)
    loss = make(conditions="all").double()
    before = float(loss.sums(logits, as_target(severity))[1])
    logits[:, 5:] += 3
    severity[:, 5:] = 2
    assert float(loss.sums(logits, as_target(severity))[1]) == before


@pytest.mark.parametrize(
    ("types", "discs", "conditions", "message"),
    [
        ((T1,), False, "shown", "spinal"),
        ((T1, AXIAL), False, "shown", "spinal"),
        ((T2,), True, "shown", "discs"),
        ((T2,), True, "all", "discs"),
        ((T2,), False, "shown", None),
        ((T1, T2), False, "shown", None),
        ((T1,), False, "all", None),
    ],
)
def test_it_is_refused_where_samples_have_no_worst_spinal_level(types, discs, conditions, message):
    LossConfig(conditions=conditions).check_samples(types, discs=discs)
    config = LossConfig(any_severe=0.5, conditions=conditions)
    if message is None:
        config.check_samples(types, discs=discs)
    else:
        with pytest.raises(ValueError, match=message):
            config.check_samples(types, discs=discs)


@pytest.mark.parametrize(
    ("series", "overrides", "message"),
    [
        (T2, ["loss.any_severe=1", "discs=true"], "discs are single levels"),
        (T1, ["loss.any_severe=1"], "spinal canal"),
        (T1, ["finish.epochs=1", "finish.loss.any_severe=1"], "spinal canal"),
        (T2, ["finish.epochs=1", "loss.kind=bce"], "finish.loss"),
        (T2, ["finish.epochs=1", "loss.conditions=all"], "finish.loss"),
    ],
)
def test_a_run_whose_losses_do_not_fit_is_refused(series, overrides, message):
    with pytest.raises(InputError, match=message):
        resolve_config(series, overrides=overrides)


def test_a_second_phase_may_have_another_loss_of_the_same_probabilities():
    overrides = ["finish.epochs=1", "loss.kind=focal", "finish.loss.any_severe=1"]
    assert resolve_config(T2, overrides=overrides).finish.loss.kind == "cross_entropy"
    resolve_config("study", overrides=["loss.any_severe=1", "loss.average=parts"])
