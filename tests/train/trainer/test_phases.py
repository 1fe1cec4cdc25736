import pytest
import torch
from pydantic import ValidationError

from lumbar.cache.names import SeriesType
from lumbar.train.run.config import resolve_config
from lumbar.train.run.network import build_model, stages
from lumbar.train.trainer.phases import phase_at, phases_of, rate_factor
from lumbar.train.trainer.trainer import Trainer

T2 = SeriesType.SAGITTAL_T2


def config(*overrides):
    return resolve_config(T2, overrides=overrides)


TWO = ("optim.epochs=3", "finish.epochs=2", "finish.lr=1e-4", "optim.lr=1e-3", "optim.warmup=0.2")


def test_a_run_has_one_phase_unless_a_second_is_asked_for():
    (only,) = phases_of(config("optim.epochs=3"))
    assert (only.first, only.last, only.head_only) == (0, 3, False)
    main, finish = phases_of(config(*TWO, "loss.weights=[1, 1, 1]"))
    assert (main.first, main.last, main.loss.weights) == (0, 3, (1, 1, 1))
    assert (finish.first, finish.last, finish.head_only) == (3, 5, True)
    assert finish.loss.weights == (1, 2, 4)
    assert config(*TWO).epochs == 5


def test_each_phase_goes_through_the_schedule_to_its_own_peak():
    settings = config(*TWO)
    factors = [rate_factor(settings, step, steps=5) for step in range(25)]
    assert max(factors[:15]) == 1
    assert factors[14] < 0.05
    assert max(factors[15:]) == pytest.approx(0.1)
    assert factors[15] == pytest.approx(0.1 / 3)
    assert [phase_at(settings, epoch).head_only for epoch in range(5)] == [False] * 3 + [True] * 2


def test_in_the_second_phase_the_head_alone_learns():
    settings = config(*TWO, "loss.weights=[1, 1, 1]")
    model = build_model(settings)
    trainer = Trainer.start(model, settings, steps=5)
    trainer.start_epoch(2)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert trainer.loss.trained.sum() == 5
    trainer.start_epoch(3)
    *below, head = stages(model)
    assert head
    assert all(parameter.requires_grad for parameter in head)
    assert not any(parameter.requires_grad for stage in below for parameter in stage)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    # A run that is resumed in the second phase finds the same state.
    again = Trainer.start(build_model(settings), settings, steps=5)
    again.start_epoch(4)
    frozen = [parameter.requires_grad for parameter in again.model.parameters()]
    assert frozen == [parameter.requires_grad for parameter in model.parameters()]


def test_waiting_for_a_better_score_and_a_second_phase_exclude_each_other():
    with pytest.raises((ValidationError, Exception), match="patience"):
        config(*TWO, "optim.patience=2")
