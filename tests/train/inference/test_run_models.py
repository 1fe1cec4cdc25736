"""Test-time augmentation: sides are exchanged and exchanged back, never mixed up."""

import numpy as np
import pytest
import torch
from torch import nn

from lumbar.cache.names import EXCHANGED_CELLS, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.inference import run_models as models_module
from lumbar.train.inference.run_models import ModelsPredicted, run_models
from lumbar.train.locator.locate import Locator
from lumbar.train.model.series import SeriesClassifier
from lumbar.train.run.checkpoint import ModelBundle

SAGITTAL = np.array([[4.5, 0, 0, -20], [0, 0, 3.2, -100], [0, -3.2, 0, 110], [0, 0, 0, 1]])
AXIAL = np.array([[0, 0, 3.2, -100], [0, 3.2, 0, -110], [-4.5, 0, 0, 20], [0, 0, 0, 1.0]])
LEFT, RIGHT = [*range(5, 10), *range(15, 20)], [*range(10, 15), *range(20, 25)]
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("uncompiled_reader")


class Sided(SeriesClassifier):
    """A side is as severe as its half of the picture is bright: the same rule on both sides."""

    def __init__(self, kind):
        nn.Module.__init__(self)
        self.kind = kind

    def forward(self, image, present, position, lengths, series_type, level):
        if self.kind == SeriesType.SAGITTAL_T2:
            brightness = image.mean(dim=(2, 3, 4))
            left = (brightness * (present & (position > 0.5))).sum(dim=1)
            right = (brightness * (present & (position < 0.5))).sum(dim=1)
        else:
            half = image.shape[-1] // 2
            left, right = (
                part.mean(dim=(1, 2, 3, 4)) for part in (image[..., half:], image[..., :half])
            )
        logits = torch.zeros(len(image), 25, 3)
        logits[:, LEFT, 2] = 20 * left[:, None]
        logits[:, RIGHT, 2] = 20 * right[:, None]
        return logits


class Lopsided(Sided):
    """Uses the left alone, whichever side it predicts."""

    def forward(self, *inputs):
        logits = super().forward(*inputs)
        logits[:, RIGHT] = logits[:, LEFT]
        return logits


@pytest.fixture
def bright_left(tmp_path, write_cache):
    """A series of each plane whose patient's left is bright."""
    sagittal = np.zeros((8, 64, 64), np.uint8)
    sagittal[4:] = 200
    axial = np.zeros((6, 64, 64), np.uint8)
    axial[:, :, 32:] = 200
    volumes = [
        ("s", "a", SeriesType.SAGITTAL_T2, sagittal, SAGITTAL),
        ("s", "b", SeriesType.AXIAL_T2, axial, AXIAL),
    ]
    return Cache(write_cache(tmp_path / "cache", volumes, {}))


def predicted(cache, config, network, *, tta, locator=None):
    prior = np.full((25, 3), 1 / 3)
    bundle = ModelBundle(config, network, prior, cache.voxel_config, locator)
    *_, last = run_models(cache, [bundle], ["s"], device=CPU, threads=1, tta=tta)
    assert isinstance(last, ModelsPredicted)
    (member,) = last.members
    return member.predictions.probabilities[0]


KINDS = (SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_symmetric_model_predicts_the_same_with_sides_exchanged(kind, small_config, bright_left):
    config = small_config("loss.conditions=all", "crop.width=64", series=kind)
    plain = predicted(bright_left, config, Sided(kind), tta=False)
    assert plain[LEFT, 2].min() > plain[RIGHT, 2].max() + 0.3
    averaged = predicted(bright_left, config, Sided(kind), tta=True)
    assert averaged == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lopsided_model_is_averaged_over_both_sides(kind, small_config, bright_left):
    """A prediction of the exchanged picture's left belongs to the patient's right."""
    config = small_config("loss.conditions=all", "crop.width=64", series=kind)
    plain = predicted(bright_left, config, Lopsided(kind), tta=False)
    assert plain[RIGHT] == pytest.approx(plain[LEFT])
    symmetric = predicted(bright_left, config, Sided(kind), tta=False)
    averaged = predicted(bright_left, config, Lopsided(kind), tta=True)
    bright, dark = symmetric[LEFT[0]], symmetric[RIGHT[0]]
    for cells in (LEFT, RIGHT):
        expected = np.tile((bright + dark) / 2, (10, 1))
        assert averaged[cells] == pytest.approx(expected, abs=1e-6)


def test_without_exchanging_the_cells_back_the_sides_would_be_mixed_up(
    monkeypatch, small_config, bright_left
):
    """The tests above can fail: this is what they would see."""
    monkeypatch.setattr(models_module, "EXCHANGED_CELLS", tuple(range(25)))
    config = small_config("loss.conditions=all", "crop.width=64")
    plain = predicted(bright_left, config, Sided(KINDS[0]), tta=False)
    mixed = predicted(bright_left, config, Sided(KINDS[0]), tta=True)
    assert mixed == pytest.approx((plain + plain[list(EXCHANGED_CELLS)]) / 2)
    assert np.abs(mixed - plain).max() > 0.1


def test_a_model_of_discs_takes_them_where_its_locator_finds_them(
    monkeypatch, small_config, bright_left
):
    config = small_config("loss.conditions=all", "discs=true", "crop.height=16", "crop.width=16")
    located_for = []

    def located(cache, rows, locator, *, device, threads):
        located_for.append((rows, locator))
        places = np.full((len(rows), 5, 3), 4.0)
        places[:, :, 1] = 10 + 10 * np.arange(5)
        return places

    class Level(SeriesClassifier):
        """Predicts for every cell how far down the disc is."""

        def __init__(self):
            nn.Module.__init__(self)

        def forward(self, image, present, position, lengths, series_type, level):
            logits = torch.zeros(len(image), 25, 3)
            logits[:, :, 2] = level[:, None].float()
            return logits

    monkeypatch.setattr(models_module, "locate", located)
    locator = object.__new__(Locator)
    found = predicted(bright_left, config, Level(), tta=False, locator=locator)
    assert located_for == [([bright_left.find_series("s/a")], locator)]
    expected = np.exp(np.arange(5)) / (2 + np.exp(np.arange(5)))
    assert found[:, 2].reshape(5, 5) == pytest.approx(np.tile(expected, (5, 1)), abs=1e-6)
