"""The checks of training steps, tried on the CPU."""

import math

import pytest
import torch

from lumbar.doctor.gpu import step as gpu_step
from lumbar.doctor.gpu.step import check_bfloat16_step, check_masked_lstm
from lumbar.doctor.host.training_step import check_training_step
from lumbar.train.trainer.trainer import Trainer

CPU = torch.device("cpu")


def test_training_step():
    assert check_training_step().state == "pass"


def test_weights_that_do_not_move(monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda _: None)
    found = check_training_step()
    assert found.state == "fail"
    assert "the weights do not change" in found.found


def test_loss_that_is_not_a_number(monkeypatch):
    nan = torch.tensor(math.nan)
    monkeypatch.setattr(Trainer, "optimise", lambda *_: (nan, nan))
    assert check_training_step().found == "losses nan, nan, nan: not all are finite"
    assert check_bfloat16_step(CPU).state == "fail"


def test_bfloat16_step_on_the_cpu():
    found = check_bfloat16_step(CPU)
    assert found.state == "pass", found


def test_masked_lstm_on_the_cpu():
    assert check_masked_lstm(CPU).found == "differs by up to 0.0e+00"


@pytest.mark.parametrize("wrong", [0.1, math.nan])
def test_lstm_that_differs(monkeypatch, wrong):
    genuine, calls = gpu_step._run_lstm, []

    def run(*arguments):
        outputs, gradient = genuine(*arguments)
        calls.append(1)
        return [outputs, gradient + wrong] if len(calls) == 2 else [outputs, gradient]

    monkeypatch.setattr(gpu_step, "_run_lstm", run)
    assert check_masked_lstm(CPU).state == "fail"
