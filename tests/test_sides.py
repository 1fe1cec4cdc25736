"""Left is left: a model trained on phantoms tells the sides of a foramen apart.

Generated Sagittal T1 studies have their left and right findings drawn at those sides, in patient
millimetres. A model trained on them must tell a left finding from a right one on studies that it
has never seen; with the slices in the opposite order it must not. The last checkpoint is used,
which the held-out studies did not choose. That the sides of the cache are the patient's is proven
apart, in tests/pipeline, on phantoms whose voxels hold millimetres.
"""

import dataclasses

import numpy as np
import pytest
import torch

from lumbar.cache.labels import UNKNOWN
from lumbar.cache.names import LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.preprocess import preprocess
from lumbar.synth.dataset import SynthConfig, write_dataset
from lumbar.train.evaluation.calibration import auc
from lumbar.train.inference.forward import predict_batches
from lumbar.train.loss import CellLoss
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.reader import Reader
from lumbar.train.run.checkpoint import LAST, load_checkpoint
from lumbar.train.run.config import resolve_config
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.loop import train

pytestmark = pytest.mark.slow

STUDIES = 110
MATRIX = 112
SETTINGS = (
    "split.folds=2",  # half of them held out: an AUC of few levels is mostly chance
    "crop.slices=10",
    "crop.height=80",
    "crop.width=36",
    "crop.pixel_mm=2.8",
    "augment.rotation_degrees=4",
    "augment.shift_mm=4",
    "augment.side_exchange=0.5",
    "model.backbone=test_resnet",
    "model.stride=8",
    "model.hidden=32",
    "model.dropout=0",
    "optim.batch=3",
    "optim.epochs=12",
    "optim.lr=4e-3",
    "bfloat16=false",
)
LEFT, RIGHT = 1, 2


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("sides")
    synth = SynthConfig(
        studies=STUDIES, seed=7, series_types=(SeriesType.SAGITTAL_T1,), max_matrix=MATRIX
    )
    for _ in write_dataset(root / "dicoms", synth, workers=0):
        pass
    for _ in preprocess(root / "dicoms", root / "cache", PreprocessConfig(size=MATRIX), workers=0):
        pass
    return Cache(root / "cache")


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    config = resolve_config(SeriesType.SAGITTAL_T1, overrides=SETTINGS)
    run = tmp_path_factory.mktemp("sides") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lumbar.train.trainer.run_log.draw_curves", lambda *_: None)
        for _ in train(cache, config, run, device=torch.device("cpu"), threads=1):
            pass
    return load_checkpoint(run / LAST)[0]


def reverse_slices(request):
    """Return a request with its slices in the opposite order, and its labels as they were."""
    (view,) = request.views
    slices = view.slices.copy()
    present = slices >= 0
    slices[present] = slices[present][::-1]
    return dataclasses.replace(request, views=(dataclasses.replace(view, slices=slices),))


def left_against_right(cache, trained, change=lambda request: request):
    """Return the AUC of "left rather than right" over the levels with a finding on one side."""
    config = trained.config
    held_out = split_samples(cache, config).held_out
    plan = Plan(held_out, config.crop, AugmentConfig.none(), batch=4, shuffle=False)
    requests = plan.requests
    plan.requests = lambda epoch, step: [change(r) for r in requests(epoch, step)]
    loss = CellLoss(config.loss, config.series_types)
    with Reader(cache, plan, device=torch.device("cpu"), threads=1) as reader:
        probabilities, _ = predict_batches(trained.model, loss, reader.epoch(), bfloat16=False)
    finding = (1 - probabilities[:, :, 0]).reshape(-1, 5, len(LEVELS))
    severity = held_out.severity.reshape(-1, 5, len(LEVELS))
    left, right = severity[:, LEFT], severity[:, RIGHT]
    one_sided = (left != UNKNOWN) & (right != UNKNOWN) & ((left > 0) != (right > 0))
    assert np.count_nonzero(one_sided) >= 15, "too few one-sided levels to tell"
    difference = (finding[:, LEFT] - finding[:, RIGHT])[one_sided]
    return auc(difference, (left > 0)[one_sided])


def test_left_and_right_foramina_are_told_apart(cache, trained):
    assert left_against_right(cache, trained) > 0.9


def test_reversed_slices_with_unchanged_labels_fail_the_same_test(cache, trained):
    assert not left_against_right(cache, trained, reverse_slices) > 0.9
