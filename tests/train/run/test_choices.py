"""Every choice by name is handled where it is made: a name that is not never runs as another."""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from pydantic import BaseModel

from lumbar.cache.format import Profile
from lumbar.cache.names import SeriesType
from lumbar.cache.volumes import write_volume
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.geometry.grid import place
from lumbar.train.ensemble.blend import weighted_mean
from lumbar.train.loss import CellLoss, LossConfig
from lumbar.train.loss.config import trained_cells
from lumbar.train.loss.kinds import loss_kind
from lumbar.train.model.attention import SlicePool
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.heads import Rsna2022Head, make_head
from lumbar.train.model.sequence import SliceSequence
from lumbar.train.optim import learning_rate_factor
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig, sample_matrices
from lumbar.train.plan.order import SamplingConfig, epoch_size, sample_order
from lumbar.train.plan.random_numbers import UniformNumbers
from lumbar.train.plan.view import _pick
from lumbar.train.reader.volumes import open_volumes
from lumbar.train.run.config import RunConfig

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text("utf-8")
NEW = "a name that nobody handles"
REFUSED = (AssertionError, TypeCheckError)
"""By `assert_never`, or before it by the types that the tests enforce."""
TYPES = [SeriesType.SAGITTAL_T2]


def changed(config, **values):
    """Return a configuration with a value that its type does not allow."""
    return config.model_copy(update=values)


def pool(name):
    slices = torch.randn(1, 1, 3, 4)
    position, present = torch.linspace(0, 1, 3)[None], torch.ones(1, 3, dtype=torch.bool)
    made = SlicePool(4, region=(0, 0), pooling=name)
    if name == "attention":
        torch.nn.init.normal_(made.score.weight)
    return made(slices, position, present).detach()


def matrix(name):
    return sample_matrices(
        changed(CropConfig(height=32, width=32), centre=name),
        AugmentConfig.none(),
        source_hw=np.full((1, 2), 90),
        spacing_mm=np.ones((1, 2)),
        centre_hw=np.full((1, 2), np.nan),
        pixel_mm=np.ones(1),
        uniform=UniformNumbers(np.full((9, 1), 0.1)),
    )


def picked(name):
    crop = changed(CropConfig(slices=4), pick=name)
    return _pick(crop, np.array([30]), np.array([0.1])).tolist()


def rate(name):
    return [learning_rate_factor(s, steps=40, warmup=0.2, kind=name) for s in range(40)]


def order(name, samples):
    config = changed(SamplingConfig(), by=name)
    return epoch_size(samples, config), sample_order(samples, config, np.random.default_rng(3))


CHOICES = {
    "model.pooling": lambda name: pool(name).numpy(),
    "model.head": lambda name: str(make_head(changed(ModelConfig(), head=name), 8)),
    "model.norm": lambda name: str(Rsna2022Head(8, norm=name)),
    "model.sequence": lambda name: str(SliceSequence(8, changed(ModelConfig(), sequence=name))),
    "loss.kind": lambda name: str(loss_kind(changed(LossConfig(), kind=name))),
    "loss.conditions": lambda n: trained_cells(changed(LossConfig(), conditions=n), TYPES).tolist(),
    "loss.average": lambda name: len(
        CellLoss(changed(LossConfig(conditions="all"), average=name), TYPES)
        .weights(torch.ones(1, 25, 3))
        .tolist()
    ),
    "optim.schedule": rate,
    "crop.pick": picked,
    "crop.centre": matrix,
}
"""What each choice of a run's configuration comes to."""


def literals(model, above=""):
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from literals(kind, f"{above}{name}.")
        elif get_origin(kind) is Literal and all(isinstance(n, str) for n in get_args(kind)):
            yield f"{above}{name}", get_args(kind)


NAMES = dict(literals(RunConfig))


def test_every_choice_of_a_run_is_tried_here():
    of_second_phase = {name for name in NAMES if name.startswith("finish.loss.")}
    assert set(NAMES) - of_second_phase == {*CHOICES, "sampling.by"}


@pytest.mark.parametrize("choice", CHOICES)
def test_each_name_is_something_of_its_own_and_no_other_name_is_anything(choice):
    torch.manual_seed(5)
    results = []
    for name in NAMES[choice]:
        torch.manual_seed(5)
        results.append(repr(CHOICES[choice](name)))
    assert len(set(results)) == len(results), dict(zip(NAMES[choice], results, strict=True))
    with pytest.raises(REFUSED):
        CHOICES[choice](NEW)


def test_each_way_to_sample_is_one_of_its_own(make_samples):
    samples = make_samples(40, studies=9)
    results = {repr(order(name, samples)) for name in NAMES["sampling.by"]}
    assert len(results) == len(NAMES["sampling.by"])
    with pytest.raises(REFUSED):
        order(NEW, samples)


@pytest.mark.parametrize("choice", NAMES)
def test_the_page_names_every_name(choice):
    row = re.search(rf"^\| `{re.escape(choice)}` \|.*$", PAGE, flags=re.MULTILINE).group()
    if choice.startswith("finish.loss."):
        assert f"`{choice.removeprefix('finish.')}`" in row
        return
    for name in NAMES[choice]:
        assert re.search(rf'["`]{name}["`]', row), name


def test_names_beside_a_run_s_configuration_are_handled_too(spine, tiny_cache, tmp_path):
    with pytest.raises(REFUSED):
        place([], PreprocessConfig().model_copy(update={"grid": NEW}))
    words = np.full((2, 1, 25, 3), 1 / 3)
    with pytest.raises(REFUSED):
        weighted_mean(words, np.full((2, 1, 25), 0.5), space=NEW)
    with pytest.raises(REFUSED):
        open_volumes(spine, [0], tier=NEW, device=torch.device("cpu"), threads=1)
    spine.profile = NEW
    with pytest.raises(REFUSED):
        open_volumes(spine, [0], tier="disk", device=torch.device("cpu"), threads=1)
    volume_dhw, attributes = np.array(spine_volume(spine)), spine.attributes(0)
    assert NEW not in get_args(Profile)
    with pytest.raises(REFUSED):
        write_volume(tmp_path, volume_dhw, attributes, profile=NEW)


def spine_volume(cache):
    return np.zeros(cache.series.select("depth", "height", "width").row(0), np.uint8)
