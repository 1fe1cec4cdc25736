from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from lumbar.cache.names import SeriesType
from lumbar.train.inference.forward import forward, predict_batches, study_means
from lumbar.train.loss import CellLoss, LossConfig
from lumbar.train.optim import OptimConfig
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.reader import Reader
from lumbar.train.run.checkpoint import build_model
from lumbar.train.run.distributed import Ranks
from lumbar.train.trainer.setup import shares_batch_norms
from lumbar.train.trainer.trainer import DivergedError, Losses, Trainer

T2 = SeriesType.SAGITTAL_T2
LOSS = CellLoss(LossConfig(), [T2])


@pytest.fixture
def batches(spine, small_config, uncompiled_reader):
    """Return a function that reads the first 22 series in batches of a size."""

    def read(size):
        series = Samples.of_series(spine, spine.rows_of(T2)[:22])
        crop = small_config().crop
        plan = Plan(series, crop, AugmentConfig.none(), batch=size, shuffle=False)
        with Reader(spine, plan, device=torch.device("cpu")) as reader:
            return list(reader.epoch())

    return read


def start(config, **optim):
    torch.manual_seed(0)
    config = config.model_copy(update={"optim": OptimConfig(**optim), "bfloat16": False})
    trainer = Trainer.start(build_model(config), config, steps=5)
    trainer.start_epoch(0)
    return trainer


def step(trainer, batch):
    return trainer.optimise(batch)[0]


def test_the_rate_follows_the_schedule_step_by_step(small_config, batches):
    trainer = start(small_config(), epochs=2, lr=1e-3, warmup=0.2)
    (batch, *_) = batches(4)
    expected = [1 / 3, 2 / 3, 1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]
    for factor in expected:
        (group,) = trainer.optimizer.param_groups
        assert group["lr"] == trainer.learning_rate == pytest.approx(1e-3 * factor, rel=1e-5)
        before = [p.detach().clone() for p in trainer.model.parameters()]
        step(trainer, batch)
        moved = max(
            float((p.detach() - q).abs().max())
            for p, q in zip(trainer.model.parameters(), before, strict=True)
        )
        # An AdamW step moves a weight by little more than the rate.
        assert 0.1 * group["initial_lr"] * factor < moved < 12 * group["initial_lr"] * factor
    assert trainer.learning_rate == pytest.approx(0, abs=1e-12)


def test_a_step_is_adamw_on_the_gradient_of_the_batch_with_its_norm_clipped(small_config, batches):
    config = small_config("model.dropout=0")
    (batch, *_) = batches(4)
    trainer = start(config, epochs=2, lr=1e-3, weight_decay=0.05, warmup=0.0, clip_norm=0.01)
    model = start(config).model
    reference = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    value = LOSS(forward(model, batch, bfloat16=False), batch.target)
    value.backward()
    gradients = [p.grad for p in model.parameters()]
    norm = torch.sqrt(sum(g.double().square().sum() for g in gradients))
    torch._foreach_mul_(gradients, 0.01 / float(norm))
    reference.step()
    assert norm > 0.01
    got = step(trainer, batch)
    assert float(got) == pytest.approx(float(value.detach()))
    assert not got.requires_grad
    for ours, theirs in zip(trainer.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)


def test_gradients_do_not_add_up_over_steps(small_config, batches):
    trainer = start(small_config("model.dropout=0"), lr=1e-12, clip_norm=1e9)
    trainer.model.eval()
    (batch, *_) = batches(4)
    norms = []
    for _ in range(3):
        step(trainer, batch)
        norms.append(sum(float(p.grad.square().sum()) for p in trainer.model.parameters()))
    assert norms == pytest.approx([norms[0]] * 3, rel=0.02)


def test_state_brings_back_everything_that_changes(small_config, batches):
    config = small_config("model.dropout=0.5")
    first = start(config, epochs=3)
    two, last = batches(4)[:2]
    step(first, two)
    first.next_epoch, first.best_total = 2, 0.75
    state = deepcopy(first.state())
    weights = {k: v.clone() for k, v in first.model.state_dict().items()}
    step(first, last)

    second = start(config, epochs=3)
    second.model.load_state_dict(weights)
    torch.rand(7)
    second.restore(state)
    assert (second.next_epoch, second.best_total) == (2, 0.75)
    step(second, last)
    assert second.learning_rate == first.learning_rate
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[name]), name


def test_a_loss_that_is_no_number_names_its_series(spine, batches):
    one, two, *_ = batches(3)
    losses = Losses(spine)
    losses.add(torch.tensor(0.5), torch.tensor(1.0), one)
    assert losses.values == [0.5]
    with pytest.raises(DivergedError) as caught:
        losses.add(torch.tensor(torch.inf), torch.tensor(1.0), two)
    ids = [spine.series["series_id"][r.views[0].row] for r in two.requests]
    assert f"series {', '.join(ids)}; got inf" in str(caught.value)


def test_on_a_device_losses_are_checked_every_ten_steps(spine, batches, monkeypatch):
    (batch, *_) = batches(3)
    losses, checks = Losses(spine), []
    monkeypatch.setattr(Losses, "check", lambda self: checks.append(len(self.pending)))
    for _ in range(9):
        losses.pending.append((torch.tensor(0.0), torch.tensor(1.0), batch.requests))
    assert checks == []
    losses.add(torch.tensor(0.0), torch.tensor(1.0), batch)
    assert checks == [10]


def test_predictions_come_in_order_whatever_the_batch(small_config, batches):
    torch.manual_seed(0)
    model = build_model(small_config())
    model.train()
    by_size = [predict_batches(model, LOSS, batches(size), bfloat16=False) for size in (1, 5, 22)]
    assert not model.training
    for probabilities, loss in by_size:
        assert probabilities.shape == (22, 25, 3)
        assert probabilities.dtype == np.float64
        assert probabilities == pytest.approx(by_size[0][0], abs=1e-5)
        assert loss == pytest.approx(by_size[0][1], rel=1e-5)
    whole = batches(22)[0]
    with torch.no_grad():
        logits = forward(model, whole, bfloat16=False)
    assert by_size[0][0] == pytest.approx(logits.double().softmax(dim=2).numpy(), abs=1e-5)
    assert by_size[0][1] == pytest.approx(float(LOSS(logits, whole.target)), rel=1e-5)


def test_batches_without_a_known_cell_have_no_loss(small_config, batches):
    (batch,) = batches(22)
    batch.target.zero_()
    assert predict_batches(build_model(small_config()), LOSS, [batch], bfloat16=False)[1] == 0


def test_bfloat16_is_near_float32(small_config, batches):
    torch.manual_seed(0)
    model = build_model(small_config())
    fine, _ = predict_batches(model, LOSS, batches(5), bfloat16=False)
    coarse, _ = predict_batches(model, LOSS, batches(5), bfloat16=True)
    assert not np.array_equal(fine, coarse)
    assert coarse == pytest.approx(fine, abs=0.03)


@pytest.fixture
def samples_of(spine):
    series = Samples.of_series(spine, spine.rows_of(T2)[:4])
    return lambda studies, levels: replace(
        series, study_id=tuple(studies), level=np.array(levels, np.int8)
    )


def test_a_study_is_the_mean_of_its_series(samples_of):
    probabilities = np.random.default_rng(0).random((4, 25, 3))
    means = study_means(samples_of("babc", [-1] * 4), probabilities)
    assert means.study_ids == ("b", "a", "c")
    assert np.array_equal(means.probabilities[0], (probabilities[0] + probabilities[2]) / 2)
    assert np.array_equal(means.probabilities[1], probabilities[1])


def test_a_disc_predicts_its_own_level_alone(samples_of):
    probabilities = np.random.default_rng(0).random((4, 25, 3))
    means = study_means(samples_of("aaba", [0, 3, 4, 3]), probabilities)
    first, second = means.of(["a", "b"]).probabilities.reshape(2, 5, 5, 3)
    discs = probabilities.reshape(4, 5, 5, 3)
    assert np.array_equal(first[:, 0], discs[0, :, 0])
    assert np.array_equal(first[:, 3], (discs[1, :, 3] + discs[3, :, 3]) / 2)
    assert np.isnan(first[:, [1, 2, 4]]).all()
    assert np.array_equal(second[:, 4], discs[2, :, 4])
    assert np.isnan(second[:, :4]).all()


def test_parts_of_a_batch_give_the_step_of_the_whole(small_config, batches):
    # Not with batch norms, which see each part by itself.
    config = small_config("model.dropout=0", "model.backbone=convnext_atto")
    (batch, *_) = batches(5)
    whole, parted = start(config, clip_norm=1e9), start(config, clip_norm=1e9, accumulate=3)
    assert [len(part.requests) for part in batch.parts(3)] == [2, 2, 1]
    # None of a single sample, of which a batch norm of the head can make nothing.
    assert [len(part.requests) for part in batches(7)[0].parts(3)] == [3, 2, 2]
    assert [len(part.requests) for part in batch.parts(9)] == [1] * 5
    expected, norm = whole.optimise(batch)
    got, norm_of_parts = parted.optimise(batch)
    assert float(got) == pytest.approx(float(expected), rel=1e-5)
    assert float(norm_of_parts) == pytest.approx(float(norm), rel=1e-3)
    for ours, theirs in zip(parted.model.parameters(), whole.model.parameters(), strict=True):
        if theirs.grad is not None:
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-5 + 1e-3 * float(norm))


def test_what_is_scored_is_the_moving_average_of_the_weights(small_config, batches):
    trainer = start(small_config(), lr=1e-2, warmup=0.0, ema=0.75)
    (batch, *_) = batches(4)
    assert trainer.scored is not trainer.model
    # torch's average begins with the weights after the first step.
    expected = None
    for _ in range(3):
        step(trainer, batch)
        now = [p.detach().clone() for p in trainer.model.parameters()]
        expected = (
            now
            if expected is None
            else [0.75 * old + 0.25 * new for old, new in zip(expected, now, strict=True)]
        )
    for ours, wanted in zip(trainer.scored.parameters(), expected, strict=True):
        assert torch.allclose(ours, wanted, atol=1e-6)
    state = deepcopy(trainer.state())
    other = start(small_config(), lr=1e-2, warmup=0.0, ema=0.75)
    other.restore(state)
    for ours, wanted in zip(other.scored.parameters(), expected, strict=True):
        assert torch.allclose(ours, wanted, atol=1e-6)


def test_indices_of_the_moving_average_stay_whole(small_config, batches):
    # With this decay torch's own average of 3 is just below it.
    trainer = start(small_config(), ema=0.9)
    (batch, *_) = batches(4)
    for _ in range(3):
        step(trainer, batch)
    regions = dict(trainer.model.named_buffers())["look.region"]
    assert set(regions.tolist()) == set(range(5))
    assert torch.equal(dict(trainer.scored.named_buffers())["look.region"], regions)


@pytest.mark.parametrize("head", ["cells", "levels", "rsna2022"])
def test_ranks_exchange_every_gradient_whatever_the_loss_leaves_out(small_config, batches, head):
    trainer = start(small_config(f"model.head={head}"))
    (batch, *_) = batches(4)
    batch.target[:, 5:] = 0
    batch.target[:, 3] = 0
    step(trainer, batch)
    missing = [n for n, p in trainer.model.named_parameters() if p.grad is None]
    assert missing == []


def test_batch_norms_are_shared_where_all_ranks_call_them(small_config):
    cuda, cpu, two = torch.device("cuda"), torch.device("cpu"), Ranks(0, 2)
    assert shares_batch_norms(small_config(), two, cuda)
    assert not shares_batch_norms(small_config(), two, cpu)
    assert not shares_batch_norms(small_config(), Ranks(), cuda)
    # The studies of one rank may lack a type, whose encoder it then does not call.
    assert not shares_batch_norms(small_config(series="study"), two, cuda)


def test_a_gradient_that_is_no_number_names_its_series(spine, batches):
    (one, *_) = batches(3)
    with pytest.raises(DivergedError, match="the gradient is not finite"):
        Losses(spine).add(torch.tensor(0.5), torch.tensor(torch.nan), one)
