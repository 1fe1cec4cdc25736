import logging
from dataclasses import replace

import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import SeriesType
from lumbar.train.run.config import resolve_config
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.learnable import check_batch_norms, check_labels, smallest_part
from lumbar.train.run.network import build_model
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.loop import train
from lumbar.train.trainer.setup import training_plan

CANAL = slice(0, 5)


@pytest.fixture
def split(spine, small_config):
    return split_samples(spine, small_config())


def without(split, cells, *, train=False, held_out=False):
    """Return a split of which some cells are known on no, one or both sides."""
    if train:
        severity = split.train.severity.copy()
        severity[:, cells] = UNKNOWN
        split = replace(split, train=replace(split.train, severity=severity))
    if held_out:
        known = {study_id: s.copy() for study_id, s in split.held_out_severity.items()}
        for severity in known.values():
            severity[cells] = UNKNOWN
        split = replace(split, held_out_severity=known)
    return split


def test_what_is_labelled_on_both_sides_is_trained(split, small_config, caplog):
    check_labels(small_config(), split)
    check_labels(small_config(), without(split, slice(5, 25), train=True, held_out=True))
    assert not caplog.text


@pytest.mark.parametrize("side", ["train", "held_out"])
def test_a_condition_without_a_label_on_a_side_is_refused_by_name(split, small_config, side):
    with pytest.raises(InputError, match=r"spinal_canal_stenosis; got no label in \d+") as caught:
        check_labels(small_config(), without(split, CANAL, **{side: True}))
    assert ("training" if side == "train" else "held-out") in str(caught.value)


def test_of_several_conditions_one_may_be_missing_where_it_is_judged_alone(
    split, small_config, caplog
):
    config = small_config("loss.conditions=all")
    with caplog.at_level(logging.WARNING):
        check_labels(config, without(split, slice(5, 10), held_out=True))
    assert "no held-out study has a label of left_neural_foraminal_narrowing" in caplog.text
    with pytest.raises(InputError, match=r"left_neural_foraminal_narrowing; got no label"):
        check_labels(config, without(split, slice(5, 10), train=True))


def test_a_run_is_refused_before_it_writes_anything(spine, small_config, tmp_path, monkeypatch):
    config = small_config()
    nothing = without(split_samples(spine, config), CANAL, train=True)
    monkeypatch.setattr("lumbar.train.trainer.loop.split_samples", lambda *_: nothing)
    with pytest.raises(InputError, match=r"nothing is known of what is to be learnt"):
        next(train(spine, config, tmp_path / "run", device=torch.device("cpu"), threads=1))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "setting",
    [
        "loss.weights=[0, 0, 0]",
        "loss.weights=[1, -1, 1]",
        "finish.loss.weights=[0.0, 0, 0]",
        "optim.lr=0",
        "optim.lr=1e-400",
        "finish.lr=0",
        "locator.lr=0",
        "sampling.weights=[0, 0, 1]",
    ],
)
def test_settings_of_which_nothing_is_learnt_are_refused(setting):
    with pytest.raises(InputError, match=setting.partition("=")[0]):
        resolve_config(SeriesType.SAGITTAL_T2, overrides=[setting])


def one_pixel(small_config, *overrides):
    """A configuration whose encoder ends in one pixel; the last batch holds one sample of 25."""
    small = ("crop.height=32", "crop.width=32", "model.stride=32", "optim.batch=4")
    return small_config(*small, *overrides)


@pytest.mark.parametrize(
    ("overrides", "fits"),
    [
        (("crop.slices=1",), False),
        (("crop.slices=2",), True),
        (("crop.slices=1", "crop.height=64"), True),
        (("crop.slices=2", "augment.slice_dropout=0.5"), False),
        (("crop.slices=1", "optim.batch=5"), True),
        (("crop.slices=1", "optim.batch=5", "optim.accumulate=5"), False),
        (("crop.slices=1", "model.frozen_stages=5"), True),
    ],
)
def test_a_batch_norm_over_a_single_value_is_refused(spine, small_config, overrides, fits):
    config = one_pixel(small_config, *overrides)
    plan = training_plan(config, split_samples(spine, config), Ranks())
    plan.epoch_size = 25  # of 4 a batch one is left, of 5 none
    network = build_model(config)
    if fits:
        check_batch_norms(network, config, plan)
        return
    with pytest.raises(InputError, match=r"batch norm over a single value"):
        check_batch_norms(network, config, plan)
    assert smallest_part(config, 25, world=1) == 1
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # torch agrees
        network.train().encoder(torch.zeros(1, 1, 32, 32))
