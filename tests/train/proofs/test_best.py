"""``best.pt`` is the network with the best metric, not the last one nor the one that fits best."""

import numpy as np
import pytest
import torch

from lumbar.cache.names import SeriesType
from lumbar.train.evaluation.metric import score
from lumbar.train.inference.forward import predict_batches, study_means
from lumbar.train.loss import CellLoss
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.reader import Reader
from lumbar.train.run.checkpoint import BEST, LAST, load_checkpoint
from lumbar.train.run.split import split_samples

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("uncompiled_reader")
def test_the_best_checkpoint_scores_best_on_the_held_out_studies(axial, train_on):
    """With a high rate the network fits better and better, and says less and less of others."""
    box = ("crop.height=32", "crop.width=32")
    ran = train_on(axial, SeriesType.AXIAL_T2, *box, "model.head=cells", "optim.epochs=4")
    totals = [epoch.score.total for epoch in ran.epochs]
    best = int(np.argmin(totals))
    assert ran.best.total == totals[best] < totals[-1]
    assert [epoch.is_best for epoch in ran.epochs].index(True, best) == best
    losses = [epoch.train_loss for epoch in ran.epochs]
    assert np.argmin(losses) != best
    assert scored(axial, ran.run / BEST) == pytest.approx(totals[best], abs=1e-6)
    assert scored(axial, ran.run / LAST) == pytest.approx(totals[-1], abs=1e-6)


def scored(cache, checkpoint):
    """Return the metric of a checkpoint, read and run anew."""
    bundle, _ = load_checkpoint(checkpoint)
    config = bundle.config
    split = split_samples(cache, config)
    plan = Plan(split.held_out, config.crop, AugmentConfig.none(), batch=3, shuffle=False)
    loss = CellLoss(config.loss, config.series_types)
    with Reader(cache, plan, device=torch.device("cpu"), threads=1) as reader:
        probabilities, _ = predict_batches(bundle.model, loss, reader.epoch(), bfloat16=False)
    studies = study_means(split.held_out, probabilities)
    severity = [split.held_out_severity[study_id] for study_id in studies.study_ids]
    return score(studies.probabilities, np.stack(severity)).total
