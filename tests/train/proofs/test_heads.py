"""Every head and both recurrent networks learn what whole series show."""

import numpy as np
import pytest

from lumbar.cache.names import SeriesType
from lumbar.train.evaluation.metric import score

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.head=cells", "model.sequence=gru"),
        ("model.head=levels", "model.sequence=gru"),
        ("model.head=levels", "model.sequence=lstm"),
        ("model.head=rsna2022", "model.sequence=lstm"),
        ("model.head=rsna2022", "model.sequence=gru", "model.norm=layer"),
    ],
    ids=lambda overrides: "-".join(o.partition("=")[2] for o in overrides),
)
def test_a_model_of_series_learns(axial, train_on, overrides):
    box = ("crop.height=32", "crop.width=32")
    more = ("optim.epochs=14", "model.hidden=64")
    ran = train_on(axial, SeriesType.AXIAL_T2, *more, *box, *overrides)
    assert ran.best.any_severe_spinal < ran.prior.any_severe_spinal
    # Better than one who counts the findings of a study but does not know their levels.
    blind = level_blind(ran.severity).spinal
    assert blind < 0.9 * ran.prior.spinal
    assert ran.best.spinal < 0.96 * blind


def level_blind(severity):
    """Return the score of the best table that has the same row for all levels of a study."""
    counts = (severity[:, :5, None] == np.arange(3)).sum(axis=1) * [1.0, 2.0, 4.0]
    shares = counts / counts.sum(axis=1, keepdims=True)
    return score(np.repeat(shares[:, None], 25, axis=1), severity)
